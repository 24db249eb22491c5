// What the plots show, how they are drawn, and how they come to paper.
const plots = (() => {
  "use strict";

  // ---- figures

  const MOST_DIGITS = 17;
  const whole = (integer) => BigInt(integer).toLocaleString("en");

  function figure(value, digits = 5) {
    if (value === null || value === undefined) return "none";
    if (typeof value === "string") return value;
    if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
    const size = Math.abs(value);
    if (size >= 1e15 || size < 1e-3) {
      const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
      return `${Number(mantissa).toString()}e${Number(exponent)}`;
    }
    const decimals = Math.max(digits - Math.floor(Math.log10(size)) - 1, 2);
    return value.toLocaleString("en", { maximumFractionDigits: decimals });
  }

  // Labels with the fewest digits that tell different values apart.
  function figures(values) {
    const distinct = new Set(values).size;
    for (let digits = 5; ; digits += 1) {
      const labels = values.map((value) => figure(value, digits));
      if (digits === MOST_DIGITS || new Set(labels).size >= distinct) return labels;
    }
  }

  function percent(share) {
    if (share === 0) return "0 %";
    if (share < 0.0001) return "< 0.01 %";
    return `${(share * 100).toLocaleString("en", { maximumSignificantDigits: 3 })} %`;
  }

  // The number `integer * 10 ** power` in full, or with an exponent where that is shorter.
  function decimal(integer, power) {
    const sign = integer < 0n ? "-" : "";
    const digits = String(integer).replace("-", "");
    if (integer === 0n) return "0";
    const significant = digits.replace(/0+$/, "");
    const point = digits.length + power;
    if (point < -2 || point > 20 || (point > 15 && significant.length < 7)) {
      const rest = significant.slice(1);
      return `${sign}${significant[0]}${rest && `.${rest}`}e${point - 1}`;
    }
    const padded = digits.padStart(digits.length - Math.min(point - 1, 0), "0");
    const front = power < 0 ? padded.slice(0, power) : digits + "0".repeat(power);
    const back = power < 0 ? padded.slice(power).replace(/0+$/, "") : "";
    return `${sign}${whole(front)}${back && `.${back}`}`;
  }

  function date(milliseconds, width) {
    const [day, time] = new Date(milliseconds).toISOString().split("T");
    if (width % 86400000 === 0) return day;
    return `${day} ${time.slice(0, width % 1000 === 0 ? 8 : 12)}`;
  }

  // As `values.duration_text` has it.
  function span(nanoseconds) {
    const size = nanoseconds < 0n ? -nanoseconds : nanoseconds;
    const sign = nanoseconds < 0n ? "-" : "";
    const padded = (number, width = 2) => String(number).padStart(width, "0");
    const seconds = size / 1000000000n;
    const rest = padded(size % 1000000000n, 9).replace(/0+$/, "");
    const clock = [seconds / 3600n % 24n, seconds / 60n % 60n, seconds % 60n]
      .map((part) => padded(part)).join(":") + (rest && `.${rest}`);
    const days = seconds / 86400n;
    if (days === 0n) return sign + clock;
    const named = `${sign}${days} ${days === 1n ? "day" : "days"}`;
    return size % 86400000000000n === 0n ? named : `${named} ${sign}${clock}`;
  }

  const isolated = (label) => `\u2068${label}\u2069`;
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

  // ---- what a plot shows, as rows: where, and share and count of each side

  const SIDES = ["reference", "current"];
  const sidesOf = (plot) => SIDES.filter((side) => plot[side]);
  const apartOf = (plot, side) => (plot.apart || {})[side] || {};
  const about = (plot, side) => ((plot.about || []).includes(side) ? "≈ " : "");

  function totalOf(plot, side) {
    const beyond = plot.rest ? plot.rest[side] : sum((plot.outside || {})[side] || []);
    return sum(plot[side] || []) + beyond + sum(Object.values(apartOf(plot, side))) || 1;
  }

  // The left edge of a bin, in milliseconds where they are dates.
  const momentOf = (plot, index) => (Number(plot.first) + index) * plot.step;
  const multipleOf = (plot, index) => BigInt(plot.first) + BigInt(index);

  function edgeLabel(plot, index) {
    if (plot.dates) return date(momentOf(plot, index), plot.step);
    const multiple = multipleOf(plot, index) * BigInt(plot.step);
    return plot.spans ? span(multiple * 10n ** BigInt(plot.power)) : decimal(multiple, plot.power);
  }

  function labelAt(plot, index) {
    if (plot.form !== "bins") return plot.at[index];
    return `${edgeLabel(plot, index)} to ${edgeLabel(plot, index + 1)}`;
  }

  function binsOf(plot) {
    const totals = Object.fromEntries(sidesOf(plot).map((side) => [side, totalOf(plot, side)]));
    return plot[sidesOf(plot)[0]].map((_, index) => {
      const bin = { index, label: labelAt(plot, index) };
      for (const side of sidesOf(plot)) {
        const count = plot[side][index];
        bin[side] = count / totals[side];
        bin[`${side} rows`] = `${about(plot, side)}${percent(bin[side])}, ${figure(count)} rows`;
      }
      return bin;
    });
  }

  // ---- plots

  const MUTED = "var(--muted)";
  const LINE = "var(--line)";
  const PAINT = {
    reference: { fill: "var(--reference)" },
    current: { stroke: "var(--current)", strokeWidth: 2 },
  };
  const CONFIG = {
    background: null,
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: {
      labelColor: MUTED, titleColor: MUTED, domainColor: LINE, tickColor: LINE, gridColor: LINE,
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: 400, labelLimit: 240,
    },
  };
  const SHARE = { type: "quantitative", axis: { format: "~%", tickCount: 4, title: null } };
  const TICKS = 7;

  const tooltip = (plot, title) => [
    { field: "label", title },
    ...sidesOf(plot).map((side) => ({ field: `${side} rows`, title: side })),
  ];

  // Places are numbered, since the labels of two may be one to a browser's numbers, or the same.
  const labelled = (labels) => `${JSON.stringify(labels)}[datum.value]`;

  // Axes of time go down to seconds.
  const temporal = (plot) => plot.dates && plot.step >= 1000;

  function edgeAxis(plot) {
    if (temporal(plot)) {
      const axis = { grid: false, tickCount: TICKS - 1 };
      return { type: "temporal", scale: { nice: false, type: "utc" }, axis };
    }
    const all = [...Array(plot.bins + 1).keys()];
    const every = [1, 2, 5, 10, 20, 50, 100].find((step) => plot.bins / step <= TICKS);
    const values = all.filter((index) => multipleOf(plot, index) % BigInt(every) === 0n);
    const labelExpr = labelled(all.map((index) => edgeLabel(plot, index)));
    return { type: "quantitative", scale: { nice: false, zero: false },
      axis: { grid: false, values, labelExpr, labelOverlap: "greedy", labelFlush: true } };
  }

  // In bins the current side is a line of steps over the filled reference.
  function binned(plot) {
    const place = (index) => (temporal(plot) ? momentOf(plot, index) : index);
    const bins = binsOf(plot).map((bin) =>
      ({ ...bin, low: place(bin.index), high: place(bin.index + 1) }));
    const last = bins[bins.length - 1];
    const steps = [{ low: bins[0].low, current: 0 }, ...bins, { low: last.high, current: last.current },
      { low: last.high, current: 0 }];
    const x = { field: "low", title: null, ...edgeAxis(plot) };
    const layer = [];
    if (plot.reference) {
      const y = { ...SHARE, field: "reference" };
      layer.push({
        mark: { type: "rect", aria: false, ...PAINT.reference },
        encoding: { x, x2: { field: "high" }, y, y2: { datum: 0 } },
      });
    }
    if (plot.current) {
      const outline = { type: "line", interpolate: "step-after", aria: false, ...PAINT.current };
      const encoding = { x, y: { ...SHARE, field: "current" }, order: { value: null } };
      layer.push({ data: { values: steps }, mark: outline, encoding });
    }
    layer.push({
      mark: { type: "rect", opacity: 0, aria: false },
      encoding: { x, x2: { field: "high" }, y: { datum: 0, ...SHARE }, y2: { value: 0 },
        tooltip: tooltip(plot, "values") },
    });
    return { data: { values: bins }, height: 190, layer };
  }

  // At single values the sides stand beside each other; names run down, numbers run across.
  function grouped(plot) {
    const down = plot.form === "top";
    const sides = sidesOf(plot);
    const values = binsOf(plot).flatMap((bin) =>
      sides.map((side) => ({ ...bin, side, share: bin[side] })));
    const place = { field: "index", type: "nominal", sort: null, title: null,
      axis: { grid: false, ticks: false, labelAngle: 0, labelOverlap: down ? false : "greedy",
        labelExpr: labelled((plot.short || plot.at).map(isolated)) } };
    const offset = { field: "side", sort: sides, scale: { paddingInner: 0.1 } };
    const share = { ...SHARE, field: "share" };
    const paint = (channel) => ({
      condition: { test: "datum.side == 'reference'", value: PAINT.reference.fill }, value: channel,
    });
    return {
      data: { values },
      height: down ? (sides.length > 1 ? 24 : 20) * plot.at.length : 190,
      mark: { type: "bar", aria: false, strokeWidth: 1.5 },
      encoding: {
        ...(down ? { y: place, yOffset: offset, x: share } : { x: place, xOffset: offset, y: share }),
        fill: paint("var(--paper)"), stroke: paint("var(--current)"),
        tooltip: tooltip(plot, "value"),
      },
    };
  }

  const specOf = (plot) => (plot.form === "bins" ? binned(plot) : grouped(plot));

  // Figures whose squares or differences a browser's numbers do not hold have no axis.
  const drawable = (list) =>
    list.every((value) => !value || (Math.abs(value) < 1e150 && Math.abs(value) > 1e-150));

  function runPoints(runs, signs, past, fields, axis) {
    const shown = fields.map((field) => field.field).filter((name) => past[name]);
    const labels = axis ? shown.map((name) => past[name].map(percent))
      : pieces(figures(shown.flatMap((name) => past[name])), runs.length);
    return runs.flatMap((run, index) => {
      const point = { index, run: run.run, started: run.started, about: isolated(run.about) };
      for (const [name, list] of Object.entries(past)) if (name !== "of") point[name] = list[index];
      point.sign = point.verdict ? signs[point.verdict].join(" ") : "not judged";
      point.colour = { fail: "var(--fail)", warn: "var(--warn)" }[point.verdict] || "var(--current)";
      shown.forEach((name, i) => { point[`${name} shown`] = labels[i][index]; });
      return shown.every((name) => point[name] === null) ? [] : [point];
    });
  }

  const pieces = (list, size) =>
    [...Array(list.length / size).keys()].map((i) => list.slice(i * size, (i + 1) * size));

  function overRuns(runs, signs, past, fields, axis) {
    const x = { field: "index", type: "quantitative", title: null, scale: { nice: false, padding: 8 },
      axis: { grid: false, labelExpr: labelled(runs.map((run) => isolated(run.about))), tickMinStep: 1,
        labelOverlap: "greedy", labelFlush: true } };
    const y = { type: "quantitative", title: null, scale: { zero: Boolean(axis) },
      axis: { tickCount: 4, ...(axis || {}) } };
    const line = fields[fields.length - 1].field;
    const tips = [["about", "of"], ["run", "run"], ["started", "started"], ["sign", "drift"],
      ...fields.filter(({ field }) => past[field]).map(({ field, title }) => [`${field} shown`, title])];
    const layer = [
      { mark: { type: "line", aria: false, stroke: "var(--current)", strokeWidth: 2 },
        encoding: { x, y: { ...y, field: line } } },
      { mark: { type: "point", filled: true, size: 90, opacity: 1, aria: false },
        encoding: { x, y: { ...y, field: line }, color: { field: "colour", type: "nominal", scale: null },
          shape: { condition: { test: "datum.verdict == 'fail' || datum.verdict == 'warn'", value: "triangle-up" },
            value: "circle" },
          tooltip: tips.map(([field, title]) => ({ field, title })) } },
    ];
    if (past.p05 && past.p95 && line === "p50") {
      const band = { type: "area", aria: false, fill: "var(--reference)", opacity: 0.45 };
      layer.unshift({ mark: band,
        encoding: { x, y: { ...y, field: "p05" }, y2: { field: "p95" } } });
    }
    return { data: { values: runPoints(runs, signs, past, fields, axis) }, height: 130, layer };
  }

  // ---- drawing, once a plot is scrolled to; the library is unpacked before, at leisure

  let library;
  function unpacked() {
    library ||= (async () => {
      const packed = document.getElementById("drawing").textContent;
      const bytes = Uint8Array.from(atob(packed), (sign) => sign.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      const script = document.createElement("script");
      script.textContent = await new Response(stream).text();
      document.head.append(script);
    })();
    return library;
  }

  const pending = new Map();

  async function draw(place) {
    const { spec, description } = pending.get(place);
    watcher.unobserve(place);
    try {
      if (!window.vegaEmbed) await unpacked();
      if (!pending.delete(place)) return;
      await window.vegaEmbed(place, { ...spec, description, width: "container", config: CONFIG,
        autosize: { type: "fit-x", contains: "padding" } },
      { mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false,
        tooltip: { disableDefaultStyle: true } });
    } catch (error) {
      pending.delete(place);
      const words = `This plot cannot be drawn here (${error.message}); its values stand below.`;
      place.replaceChildren(Object.assign(document.createElement("p"), { textContent: words }));
    }
    place.classList.add("drawn");
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting && pending.has(target)) draw(target);
  }, { rootMargin: "300px" });

  function watch(place, spec, description) {
    pending.set(place, { spec, description });
    watcher.observe(place);
  }

  // Draws what is laid out but not drawn; once the library is unpacked it waits for nothing that a
  // browser would not do before it prints.
  async function drawAll() {
    await Promise.all([...pending.keys()].filter((place) => place.clientWidth).map(draw));
  }

  (window.requestIdleCallback || setTimeout)(() => unpacked().catch(() => {}));

  return { figure, figures, percent, sum, sidesOf, apartOf, about, totalOf, binsOf, specOf, drawable,
    overRuns, watch, drawAll };
})();
