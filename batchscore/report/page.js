// Fills the panel of a column when it is opened, and draws its plots when they are scrolled to.
(() => {
  "use strict";

  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const facts = read("facts");
  const figures = read("figures");
  const rows = [...document.querySelectorAll("#list > li")];
  const panels = rows.map((row) => row.querySelector("details"));
  const drawings = new Map();

  // Texts are only ever set as text, so that a hostile name stays a name.
  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  const text = (tag, content, attributes = {}) => element(tag, attributes, content);

  // ---- figures

  function figure(value) {
    if (value === null || value === undefined) return "none";
    if (typeof value === "string") return value;
    if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
    const size = Math.abs(value);
    if (size >= 1e7 || size < 1e-3) return value.toExponential(3).replace("e+", "e");
    const digits = size >= 1e4 ? 8 : 5;
    return value.toLocaleString("en", { maximumSignificantDigits: digits });
  }

  function percent(share) {
    if (share === 0) return "0 %";
    if (share < 0.0001) return "< 0.01 %";
    return `${(share * 100).toLocaleString("en", { maximumSignificantDigits: 3 })} %`;
  }

  function date(milliseconds, width) {
    const iso = new Date(milliseconds).toISOString();
    return width % 86400000 === 0 ? iso.slice(0, 10) : iso.slice(0, 19).replace("T", " ");
  }

  const plain = (value) => Number(value.toPrecision(10));
  const isolated = (label) => `\u2068${label}\u2069`;
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

  // ---- what a plot shows, as rows: where, and share and count of each side

  const SIDES = ["reference", "current"];
  const sidesOf = (plot) => SIDES.filter((side) => plot[side]);

  function totalOf(plot, side) {
    const apart = plot.rest ? plot.rest[side] : sum((plot.outside || {})[side] || []);
    return sum(plot[side]) + apart || 1;
  }

  function labelAt(plot, index) {
    if (plot.form === "top") return plot.at[index] === "" ? "(empty)" : plot.at[index];
    if (plot.form === "points") return plot.dates ? date(plot.at[index], 1) : figure(plot.at[index]);
    const [low, high] = edges(plot, index);
    if (plot.dates) return `${date(low, plot.width)} to ${date(high, plot.width)}`;
    return `${figure(low)} to ${figure(high)}`;
  }

  function edges(plot, index) {
    const low = plot.start + index * plot.width;
    return [plain(low), plain(low + plot.width)];
  }

  function binsOf(plot) {
    const totals = Object.fromEntries(sidesOf(plot).map((side) => [side, totalOf(plot, side)]));
    return plot[sidesOf(plot)[0]].map((_, index) => {
      const bin = { index, label: labelAt(plot, index) };
      for (const side of sidesOf(plot)) {
        const count = plot[side][index];
        bin[side] = count / totals[side];
        bin[`${side} rows`] = `${percent(bin[side])}, ${figure(count)} rows`;
      }
      return bin;
    });
  }

  // ---- plots

  const INK = "var(--ink)";
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
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: 400, labelLimit: 150,
    },
  };
  const SHARE = { type: "quantitative", axis: { format: "~%", tickCount: 4, title: null } };

  const tooltip = (plot, title) => [
    { field: "label", title },
    ...sidesOf(plot).map((side) => ({ field: `${side} rows`, title: side })),
  ];

  // In bins the current side is a line of steps over the filled reference.
  function binned(plot) {
    const at = plot.dates ? "temporal" : "quantitative";
    const bins = binsOf(plot).map((bin) => {
      const [low, high] = edges(plot, bin.index);
      return { ...bin, low, high };
    });
    const last = bins[bins.length - 1];
    const steps = [{ low: bins[0].low, current: 0 }, ...bins, { low: last.high, current: last.current },
      { low: last.high, current: 0 }];
    const scale = { nice: false, ...(plot.dates ? { type: "utc" } : { zero: false }) };
    const x = { field: "low", type: at, title: null, scale, axis: { grid: false, tickCount: 6 } };
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
      sides.map((side) => ({ ...bin, at: isolated(bin.label), side, share: bin[side] })));
    const place = { field: "at", type: "nominal", sort: null, title: null,
      axis: { grid: false, ticks: false, labelAngle: 0, labelOverlap: down ? false : "greedy" } };
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

  function runPoints(past, fields, axis) {
    return facts.runs.flatMap((run, index) => {
      const point = { index, run: run.run, started: run.started, about: isolated(run.about) };
      for (const [name, list] of Object.entries(past)) if (name !== "of") point[name] = list[index];
      point.sign = point.verdict ? facts.signs[point.verdict].join(" ") : "not judged";
      point.colour = { fail: "var(--fail)", warn: "var(--warn)" }[point.verdict] || "var(--current)";
      const shown = fields.map((field) => field.field).filter((name) => past[name]);
      for (const name of shown) point[`${name} shown`] = axis ? percent(point[name]) : figure(point[name]);
      return shown.every((name) => point[name] === null) ? [] : [point];
    });
  }

  function overRuns(past, fields, axis) {
    const starts = JSON.stringify(facts.runs.map((run) => isolated(run.about)));
    const x = { field: "index", type: "quantitative", title: null, scale: { nice: false, padding: 8 },
      axis: { grid: false, labelExpr: `${starts}[datum.value]`, tickMinStep: 1,
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
    return { data: { values: runPoints(past, fields, axis) }, height: 130, layer };
  }

  // ---- the library is unpacked when the first plot is due

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

  async function draw(place) {
    const { spec, description } = drawings.get(place);
    drawings.delete(place);
    try {
      await unpacked();
      await window.vegaEmbed(place, { ...spec, description, width: "container", config: CONFIG,
        autosize: { type: "fit-x", contains: "padding" } },
      { mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false,
        tooltip: { disableDefaultStyle: true } });
    } catch (error) {
      place.replaceChildren(text("p", `This plot cannot be drawn here (${error.message}); its values stand below.`));
    }
    place.classList.add("drawn");
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "300px" });

  function plotted(spec, description, table) {
    const place = element("div", { class: "plot" });
    drawings.set(place, { spec, description });
    watcher.observe(place);
    const values = element("details", {}, text("summary", "Values as a table"));
    values.addEventListener("toggle", () => {
      if (values.open && values.children.length === 1) values.append(scrolling(table(), description));
    });
    return element("figure", { style: "margin:0" }, place, values);
  }

  // ---- tables

  function scrolling(table, label) {
    return element("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, table);
  }

  function table(heads, lines, left = 1) {
    const cell = (tag, content, index, more = {}) =>
      element(tag, { ...(index < left ? {} : { class: "n" }), ...more }, content);
    const head = element("tr", {}, ...heads.map((name, i) => cell("th", name, i, { scope: "col" })));
    const body = lines.map((line) => element("tr", {}, ...line.map((content, i) => 
      (i ? cell("td", content, i) : cell("th", content, i, { scope: "row" })))));
    return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  }

  function badge(verdict) {
    const [sign, words] = facts.signs[verdict];
    return element("span", { class: `badge ${verdict}` },
      text("span", sign, { "aria-hidden": "true" }), ` ${words}`);
  }

  function outcome(word) {
    if (facts.signs[word]) return badge(word);
    return word === "undecided" ? text("span", "? undecided", { class: "badge undecided" }) : "shown";
  }

  // Fields of a measure as the page holds them.
  const [NAME, VALUE, LOW, HIGH, FLOOR, , WARN, FAIL, OUTCOME, DETAIL] = Array(10).keys();

  function effect(measure) {
    if (measure[LOW] !== null && measure[LOW] !== measure[HIGH]) {
      return `${figure(measure[LOW])} to ${figure(measure[HIGH])}`;
    }
    return figure(measure[VALUE]);
  }

  function measureLine(measure) {
    const [title, meaning] = facts.measures[measure[NAME]] || [measure[NAME], ""];
    const about = measure[DETAIL] ? [element("small", {}, element("bdi", {}, measure[DETAIL]))] : [];
    const limits = [WARN, FAIL].map((field) => (measure[field] === null ? "–" : figure(measure[field])));
    return [
      element("span", { title: meaning }, title, ...about), outcome(measure[OUTCOME]), effect(measure),
      measure[FLOOR] === null ? "–" : figure(measure[FLOOR]), limits.join(" / "),
    ];
  }

  function measureTable(list, label) {
    const heads = ["Measure", "Verdict", "Effect", "Noise floor", "Warn / fail"];
    return scrolling(table(heads, list.map(measureLine), 2), label);
  }

  function measures(found) {
    const judged = found.measures.filter((measure) => measure[OUTCOME] !== "shown");
    const shown = found.measures.filter((measure) => measure[OUTCOME] === "shown");
    const more = element("details", {}, text("summary", "Other distances, shown only"),
      measureTable(shown, "Other distances"));
    return [judged.length ? measureTable(judged, "Distances") : null, shown.length ? more : null];
  }

  const sideNames = () => ["current", ...facts.sides];

  function rowLines(column) {
    const each = (part) => column.rows.map((rows) => (rows ? part(rows) : "none"));
    const nulls = ([all, missing]) => (missing ? `${figure(missing)}, ${percent(missing / all)}` : "0");
    return [["rows", ...each(([all]) => figure(all))], ["nulls", ...each(nulls)]];
  }

  function statistics(name, first, aspect) {
    const lines = aspect ? aspect.statistics.map(([title, ...values]) =>
      [title.replaceAll("_", " "), ...values.map((value) => element("bdi", {}, figure(value)))]) : [];
    const all = [...first, ...lines];
    if (!all.length) return null;
    const made = scrolling(table(["", ...sideNames()], all), `Statistics of ${name}`);
    return first.length ? made : element("details", {}, text("summary", "Statistics"), made);
  }

  // ---- the panel of a column

  function described(name, plot) {
    const bins = binsOf(plot);
    const peaks = sidesOf(plot).map((side) => {
      const most = bins.reduce((best, bin) => (bin[side] > best[side] ? bin : best), bins[0]);
      return `${side} most often ${most.label}, ${percent(most[side])}`;
    });
    return `Distribution of ${name}: ${peaks.join("; ")}.`;
  }

  function outside(plot) {
    const parts = Object.entries(plot.outside || {}).map(([side, [below, above]]) => {
      const total = totalOf(plot, side);
      return `${side} ${percent(below / total)} below, ${percent(above / total)} above`;
    });
    if (plot.rest && Object.values(plot.rest).some(Boolean)) {
      const rests = sidesOf(plot).map((side) => `${side} ${percent(plot.rest[side] / totalOf(plot, side))}`);
      return text("p", `All other values: ${rests.join(", ")}.`, { class: "note" });
    }
    return parts.length ? text("p", `Beyond the plot: ${parts.join("; ")}.`, { class: "note" }) : null;
  }

  function legend(plot) {
    const keys = sidesOf(plot).flatMap((side) =>
      [element("span", { class: `swatch ${side}`, "aria-hidden": "true" }), ` ${side} `]);
    return element("p", { class: "legend" }, ...keys);
  }

  function distribution(name, plot) {
    if (!plot) return null;
    const spec = plot.form === "bins" ? binned(plot) : grouped(plot);
    const lines = () => table(["", ...sidesOf(plot)],
      binsOf(plot).map((bin) => [element("bdi", {}, bin.label), ...sidesOf(plot).map((side) => bin[`${side} rows`])]));
    const rough = plot.approximate
      ? text("p", "More distinct values than are counted one by one: these counts are approximate.", { class: "note" })
      : null;
    return element("div", {}, legend(plot), plotted(spec, described(name, plot), lines), ...[outside(plot), rough].filter(Boolean));
  }

  function heading(each) {
    const notes = [each.judged === false ? "Not judged, by the rules." : "", each.note || ""];
    const note = notes.join(" ").trim();
    return element("p", {}, badge(each.verdict), note ? element("bdi", {}, ` ${note}`) : "");
  }

  // One comparison has its plot beside its distances, several stand beside each other.
  function compared(aspect, name, index, level) {
    const found = aspect.found.filter((each) => each.with === index);
    const many = facts.sides.length > 1;
    const title = many ? text(level, facts.sides[index], { dir: "auto" }) : null;
    const judged = element("div", {}, ...found.flatMap(measures).filter(Boolean));
    const plot = distribution(name, aspect.plots[index]);
    return element("div", many ? {} : { class: "pair" },
      element("div", {}, ...[title, ...found.map(heading), plot].filter(Boolean)), judged);
  }

  function aspectPart(aspect, name, single, first) {
    const title = single ? name : `${name}, ${aspect.name}`;
    const plots = aspect.plots.map((_, index) => compared(aspect, title, index, single ? "h4" : "h5"));
    const parts = [single ? null : text("h4", aspect.name),
      element("div", plots.length > 1 ? { class: "pair" } : {}, ...plots), statistics(title, first, aspect)];
    return element("div", {}, ...parts.filter(Boolean));
  }

  const shares = new Set(["nulls", "top"]);

  function pastTable(past) {
    const names = Object.keys(past).filter((name) => name !== "verdict" && name !== "of");
    return table(["of", "drift", ...names, "run"], facts.runs.map((run, i) => [
      element("bdi", { class: "id" }, run.about),
      past.verdict && past.verdict[i] ? badge(past.verdict[i]) : "not judged",
      ...names.map((name) => (past[name][i] !== null && shares.has(name) ? percent(past[name][i]) : figure(past[name][i]))),
      run.run,
    ]), 2);
  }

  function overRunsPlot(past, name, title, fields, axis) {
    const spec = overRuns(past, fields.map(([field, label]) => ({ field, title: label })), axis);
    const description = `${title} of ${name} over runs`;
    const told = past.verdict
      ? text("p", "▲ a run in which the column warned or failed", { class: "legend" })
      : "";
    return element("div", {}, text("h5", title), told, plotted(spec, description, () => pastTable(past)));
  }

  function history(past, name) {
    const share = { format: "~%" };
    const of = past.of ? ` of ${past.of}` : "";
    const plots = [];
    if (past.p50 && past.p50.some((value) => typeof value === "number")) {
      const fields = [["p05", "5 %"], ["p95", "95 %"], ["p50", "median"]];
      plots.push(overRunsPlot(past, name, `Median${of}, with 5 % to 95 %`, fields, null));
    } else if (past.top) {
      const title = `Share of the most frequent value${of}`;
      plots.push(overRunsPlot(past, name, title, [["top", "share"]], share));
    }
    if (past.nulls && past.nulls.some((value) => value > 0)) {
      plots.push(overRunsPlot(past, name, "Share of nulls", [["nulls", "nulls"]], share));
    } else {
      plots.push(text("p", "No run had nulls.", { class: "note" }));
    }
    return element("div", {}, text("h4", "Over runs"), element("div", { class: "pair" }, ...plots));
  }

  function fill(index) {
    const details = panels[index];
    if (details.querySelector(".panel")) return;
    const name = details.querySelector("h3").textContent;
    const column = figures[index];
    if (!column) {
      const words = "The figures of this column were left out, so that the page stays small; its profile file has them.";
      details.append(element("div", { class: "panel" }, text("p", words)));
      return;
    }
    const single = column.aspects.length === 1;
    const parts = column.aspects.map((aspect, i) =>
      aspectPart(aspect, name, single, i ? [] : rowLines(column)));
    if (!parts.length) parts.push(statistics(name, rowLines(column), null));
    if (column.more) parts.push(text("p", `${column.more} more aspects, none of them worse, are left out.`));
    if (column.past) parts.push(history(column.past, name));
    details.append(element("div", { class: "panel" }, ...parts));
  }

  // ---- search

  const search = document.getElementById("search");
  const verdicts = document.getElementById("verdicts");
  const names = rows.map((row) => {
    const name = row.querySelector("bdi");
    return `${name.textContent}\n${name.title}`.toLowerCase();
  });

  function find() {
    const wanted = search.value.trim().toLowerCase();
    let found = 0;
    rows.forEach((row, index) => {
      row.hidden = !names[index].includes(wanted) || (verdicts.value && row.dataset.v !== verdicts.value);
      found += row.hidden ? 0 : 1;
    });
    const all = rows.length.toLocaleString("en");
    document.getElementById("found").textContent = `${found.toLocaleString("en")} of ${all} columns`;
  }

  const setAll = (open) => rows.forEach((row, index) => { if (!row.hidden) panels[index].open = open; });

  search.addEventListener("input", find);
  verdicts.addEventListener("change", find);
  document.getElementById("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const first = rows.findIndex((row) => !row.hidden);
    if (first >= 0) panels[first].open = true;
  });
  document.getElementById("open").addEventListener("click", () => setAll(true));
  document.getElementById("close").addEventListener("click", () => setAll(false));
  panels.forEach((details, index) => {
    details.addEventListener("toggle", () => details.open && fill(index));
    if (details.open) fill(index);
  });
  find();
})();
