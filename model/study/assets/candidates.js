"use strict";
// The table of the candidates: each one's probability after every stage, and what became of it.
const candidate_table = (() => {
  const { el, fill, rect, svg } = elements;
  const { fixed, integer, percent, token_el } = words;

  /** The first tokens by raw rank, the first allowed ones, the token drawn, and the token that these settings draw. */
  function listed({ step, drawn, result }) {
    const order = step.order();
    const { allowed } = step.row();
    const possible = allowed ? order.filter((id) => allowed[id]).subarray(0, step.top) : [];
    const ids = new Set([...order.subarray(0, step.top), ...possible, drawn.token, result.token]);
    return [...ids].map((id) => ({ id, rank: order.indexOf(id) + 1 })).sort((a, b) => a.rank - b.rank);
  }

  function bar(p, most, hatched) {
    const options = { viewBox: "0 0 100 9", preserveAspectRatio: "none", "aria-hidden": "true" };
    return svg(
      "svg",
      options,
      rect(0, 0, 100, 9, "track"),
      rect(0, 0, (100 * p) / most, 9, hatched ? "hatched" : "bar"),
    );
  }

  function cell(probabilities, i, cut_at, most) {
    if (cut_at !== null && i > cut_at) return el("td", {}, "·");
    if (i === cut_at) return el("td", {}, bar(i ? probabilities[i - 1] : 0, most, true), "cut");
    return el("td", {}, bar(probabilities[i], most, false), percent(probabilities[i]));
  }

  function outcome(id, cut_by, { drawn, result, is_moved }) {
    const kept = cut_by === null ? "kept" : `cut by ${cut_by}`;
    if (id === result.token && id === drawn.token) return is_moved ? "drawn, both ways" : "drawn";
    if (id === drawn.token) return `drawn; ${kept}`;
    return id === result.token ? "would be drawn" : kept;
  }

  function row({ id, rank }, probabilities, most, seen) {
    const { step, drawn, result } = seen;
    const { stages } = result;
    const at = stages.findIndex(({ kept }) => engine.place_of(id, kept) < 0);
    const cut_at = at < 0 ? null : at;
    const cut_by = cut_at === null ? null : stages[cut_at].name;
    const name = id === drawn.token ? "drawn" : id === result.token ? "would" : cut_by === null ? null : "cut";
    return el(
      "tr",
      { class: name },
      el("th", { scope: "row" }, token_el(id), el("span", { class: "id" }, ` ${id}`)),
      el("td", {}, integer(rank)),
      el("td", {}, fixed(step.row().logits[id], 3)),
      ...probabilities.map((_, i) => cell(probabilities, i, cut_at, most)),
      el("td", { class: "last" }, outcome(id, cut_by, seen)),
    );
  }

  function others_row(ids, { stages }, vocabulary) {
    const place_mass = (kept) =>
      ids.reduce(
        (mass, id) => (engine.place_of(id, kept) < 0 ? mass : mass + BigInt(kept.w[engine.place_of(id, kept)])),
        0n,
      );
    const masses = stages.map(({ kept }) => Number(kept.total - place_mass(kept)) / Number(kept.total));
    const last = stages[stages.length - 1].kept;
    const left = last.ids.length - ids.filter((id) => engine.place_of(id, last) >= 0).length;
    const count = vocabulary - ids.length;
    return el(
      "tr",
      { class: "cut" },
      el("th", { scope: "row" }, `+${integer(count)} others`),
      el("td"),
      el("td"),
      ...masses.map((mass) => el("td", {}, percent(mass))),
      el("td", { class: "last" }, `${integer(left)} kept`),
    );
  }

  /** seen: { step, drawn, result, is_moved }. */
  function draw(seen) {
    const { step, result } = seen;
    const vocabulary = step.row().logits.length;
    const candidates = listed(seen);
    const probabilities = candidates.map(({ id }) => result.stages.map(({ kept }) => engine.probability(id, kept)));
    const most = Math.max(...probabilities.flat());
    const stage_names = result.stages.map(({ name, value }) => `${name}${value === null ? "" : ` ${value}`}`);
    const headings = ["token, id", "rank", "logit", ...stage_names];
    const head = [
      ...headings.map((heading) => el("th", { scope: "col" }, heading)),
      el("th", { scope: "col", class: "last" }, "outcome"),
    ];
    const rows = candidates.map((candidate, i) => row(candidate, probabilities[i], most, seen));
    const ids = candidates.map(({ id }) => id);
    const others = vocabulary > candidates.length ? [others_row(ids, result, vocabulary)] : [];
    fill("candidates", el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows, ...others));
  }

  return { draw };
})();
