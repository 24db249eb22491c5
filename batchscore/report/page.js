// Fetches the panel of a column from the page's packs when it is opened, finds columns, and says
// what lies under the pointer. Without it the worst columns are there all the same.
(() => {
  "use strict";

  const { written, pack } = document.currentScript.dataset;
  const rows = [...document.querySelectorAll("#list > li")];
  const panels = rows.map((row) => row.querySelector("details"));
  const packs = [...document.querySelectorAll("script.pack")];

  // ---- panels, which the page was made with and which no name or value can add markup to

  const unpacked = new Map();

  async function unpack(number) {
    const bytes = Uint8Array.from(atob(packs[number].textContent), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  async function panelOf(index) {
    const place = index - written;
    const number = Math.floor(place / pack);
    if (!packs[number]) {
      return "<p class='panel'>The figures of this column were left out, so that the page stays small; its profile file has them.</p>";
    }
    if (!unpacked.has(number)) unpacked.set(number, unpack(number));
    return (await unpacked.get(number))[place - number * pack];
  }

  async function fill(index) {
    const details = panels[index];
    if (details.dataset.filled || details.querySelector(".panel")) return;
    details.dataset.filled = "yes";
    try {
      details.insertAdjacentHTML("beforeend", await panelOf(index));
    } catch (error) {
      const words = `The figures cannot be unpacked here (${error.message}); batchscore show has them.`;
      details.append(Object.assign(document.createElement("p"), { className: "panel", textContent: words }));
    }
  }

  // ---- what lies under the pointer

  const tip = document.getElementById("tip");
  const ROOM = 12;

  function point(event) {
    const zone = event.target.closest?.(".zone");
    tip.hidden = !zone;
    if (!zone) return;
    tip.textContent = zone.dataset.words || zone.querySelector("title").textContent;
    // A title would come up as well, a second later.
    zone.dataset.words = tip.textContent;
    zone.querySelector("title")?.remove();
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + ROOM, window.innerWidth - width - ROOM);
    const below = event.clientY + ROOM + height < window.innerHeight;
    tip.style.left = `${Math.max(left, 0)}px`;
    tip.style.top = `${below ? event.clientY + ROOM : event.clientY - ROOM - height}px`;
  }

  // Scrolling moves other places below a pointer that rests.
  let last = { clientX: -1, clientY: -1 };
  const scrolled = () => {
    const target = document.elementFromPoint(last.clientX, last.clientY);
    point({ clientX: last.clientX, clientY: last.clientY, target: target || document.body });
  };
  for (const event of ["pointermove", "pointerdown"]) {
    document.addEventListener(event, (at) => { last = at; point(at); });
  }
  document.addEventListener("scroll", scrolled, { passive: true });

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
  for (const link of document.querySelectorAll(".banner a")) {
    link.addEventListener("click", () => { document.querySelector(link.hash).open = true; });
  }
  panels.forEach((details, index) => {
    details.addEventListener("toggle", () => details.open && fill(index));
    if (details.open) fill(index);
  });
  find();
})();
