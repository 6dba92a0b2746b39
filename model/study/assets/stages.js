"use strict";
// The table of the stages: what each left, and what it cut.
const stage_table = (() => {
  const { el, fill } = elements;
  const { bits, integer, percent, setting } = words;
  const NOT_FILTERS = ["logits", "penalties", "temperature"]; // these stages weigh the tokens again and cut nothing
  const HEADINGS = ["stage", "setting", "left", "of the mass", "least p kept", "greatest p cut", "entropy, bits"];

  /** The mass of the tokens that a stage kept, the least of it, and the greatest cut (-1: none), all before it. */
  function seen_before(before, after) {
    const seen = { mass: 0, least: Infinity, greatest: -1 };
    before.ids.forEach((id, i) => {
      const w = before.w[i];
      if (engine.place_of(id, after) < 0) {
        seen.greatest = Math.max(seen.greatest, w);
      } else {
        seen.mass += w;
        seen.least = Math.min(seen.least, w);
      }
    });
    return seen;
  }

  function row({ name, value, kept }, before) {
    const weighed = NOT_FILTERS.includes(name) ? kept : before;
    const { mass, least, greatest } = seen_before(weighed, kept);
    const total = Number(weighed.total);
    const cells = [
      setting(value),
      integer(kept.ids.length),
      percent(mass / total),
      percent(least / total),
      greatest < 0 ? "–" : percent(greatest / total),
      bits(engine.entropy_of(kept)),
    ];
    return el("tr", {}, el("th", { scope: "row" }, name), ...cells.map((cell) => el("td", {}, cell)));
  }

  function draw({ stages }) {
    const head = el("tr", {}, ...HEADINGS.map((heading) => el("th", { scope: "col" }, heading)));
    const rows = stages.map((stage, i) => row(stage, stages[Math.max(0, i - 1)].kept));
    fill("stages", el("thead", {}, head), el("tbody", {}, ...rows));
  }

  return { draw };
})();
