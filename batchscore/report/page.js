// Fills the panel of a column when it is opened, and draws its plots when they are scrolled to.
(() => {
  "use strict";

  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const facts = read("facts");
  const columns = read("figures");
  const rows = [...document.querySelectorAll("#list > li")];
  const panels = rows.map((row) => row.querySelector("details"));
  const { figure, percent, sidesOf, about } = plots;

  // Texts are only ever set as text, so that a hostile name stays a name.
  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  const text = (tag, content, attributes = {}) => element(tag, attributes, content);

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

  // What fills the table of values beside each plot.
  const fillings = new Map();

  function valueTable(place, lines, description) {
    const values = element("details", {}, text("summary", "Values as a table"));
    const fillTable = () => {
      if (values.children.length === 1) values.append(scrolling(lines(), description));
    };
    values.addEventListener("toggle", () => values.open && fillTable());
    fillings.set(values, { place, fillTable });
    return values;
  }

  function plotted(spec, description, lines) {
    const place = element("div", { class: "plot" });
    plots.watch(place, spec, description);
    return element("figure", { style: "margin:0" }, place, valueTable(place, lines, description));
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
    const bins = plots.binsOf(plot);
    const peaks = sidesOf(plot).map((side) => {
      const most = bins.reduce((best, bin) => (bin[side] > best[side] ? bin : best), bins[0]);
      return `${side} most often ${most.label}, ${about(plot, side)}${percent(most[side])}`;
    });
    return `Distribution of ${name}: ${peaks.join("; ")}.`;
  }

  function beyond(plot, side) {
    const total = plots.totalOf(plot, side);
    const [below, above] = (plot.outside || {})[side] || [0, 0];
    const far = below + above ? [[below, "below"], [above, "above"]] : [];
    const parts = far.map(([count, where]) => `${about(plot, side)}${percent(count / total)} ${where}`);
    const apart = Object.entries(plots.apartOf(plot, side)).map(([where, count]) =>
      `${percent(count / total)} ${where} (${figure(count)} ${count === 1 ? "row" : "rows"})`);
    const all = [...parts, ...apart];
    return all.length ? [`${side} ${all.join(", ")}`] : [];
  }

  function outside(plot) {
    if (plot.rest && Object.values(plot.rest).some(Boolean)) {
      const rests = sidesOf(plot).map((side) =>
        `${side} ${about(plot, side)}${percent(plot.rest[side] / plots.totalOf(plot, side))}`);
      return text("p", `All other values: ${rests.join(", ")}.`, { class: "note" });
    }
    const parts = ["reference", "current"].flatMap((side) => beyond(plot, side));
    return parts.length ? text("p", `Beyond the plot: ${parts.join("; ")}.`, { class: "note" }) : null;
  }

  function legend(plot) {
    const keys = sidesOf(plot).flatMap((side) =>
      [element("span", { class: `swatch ${side}`, "aria-hidden": "true" }), ` ${side} `]);
    return element("p", { class: "legend" }, ...keys);
  }

  function distribution(name, plot) {
    if (!plot || plot.form === "none") return plot && outside(plot);
    const sides = sidesOf(plot);
    const lines = () => table(["", ...sides], plots.binsOf(plot).map((bin) =>
      [element("bdi", {}, bin.label), ...sides.map((side) => bin[`${side} rows`])]));
    const rough = plot.about
      ? text("p", "≈ More distinct values than are counted one by one: these counts are approximate.", { class: "note" })
      : null;
    return element("div", {}, legend(plot),
      plotted(plots.specOf(plot), described(name, plot), lines), outside(plot), rough);
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
    const places = names.filter((name) => !shares.has(name));
    const labels = plots.figures(places.flatMap((name) => past[name]));
    const cell = (name, i) => (shares.has(name) && past[name][i] !== null
      ? percent(past[name][i]) : labels[places.indexOf(name) * facts.runs.length + i]);
    return table(["of", "drift", ...names, "run"], facts.runs.map((run, i) => [
      element("bdi", { class: "id" }, run.about),
      past.verdict && past.verdict[i] ? badge(past.verdict[i]) : "not judged",
      ...names.map((name) => cell(name, i)),
      run.run,
    ]), 2);
  }

  function overRunsPlot(past, name, title, fields, axis) {
    const description = `${title} of ${name} over runs`;
    const told = past.verdict
      ? text("p", "▲ a run in which the column warned or failed", { class: "legend" })
      : "";
    if (!plots.drawable(fields.flatMap(([field]) => past[field] || []))) {
      return element("div", {}, text("h5", title), scrolling(pastTable(past), description));
    }
    const named = fields.map(([field, label]) => ({ field, title: label }));
    const spec = plots.overRuns(facts.runs, facts.signs, past, named, axis);
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
    const column = columns[index];
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

  // ---- paper: what is open is drawn, and what is not has its values instead

  const opened = [];

  function showValues() {
    for (const [values, { place, fillTable }] of fillings) {
      if (place.querySelector("svg") || values.open || !place.clientWidth) continue;
      fillTable();
      values.open = true;
      opened.push(values);
    }
  }

  window.addEventListener("beforeprint", () => {
    panels.forEach((details, index) => details.open && fill(index));
    if (window.vegaEmbed) plots.drawAll().then(showValues);
    else showValues();
  });
  window.addEventListener("afterprint", () => {
    for (const values of opened.splice(0)) values.open = false;
  });

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
