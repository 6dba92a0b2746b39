"use strict";
// The mass of the most probable tokens, and where top-p cuts it.
const top_p_chart = (() => {
  const { el, fill, label, line, picture, polyline, svg, width_of } = elements;
  const { fixed, integer } = words;

  /** The distribution before top-p, the number of tokens it kept (null: off), and its setting. */
  function seen_by_top_p({ stages }) {
    const at = stages.findIndex((stage) => stage.name === "top_p");
    if (at >= 0) return { before: stages[at - 1].kept, size: stages[at].kept.ids.length, p: stages[at].value };
    const before = stages.findLast(({ name }) => name === "temperature" || name === "top_k").kept;
    return { before, size: null, p: null };
  }

  function cumulative(kept) {
    const total = Number(kept.total);
    let mass = 0;
    return Array.from(engine.in_order(kept.x), (place) => (mass += kept.w[place] / total));
  }

  /** Ranks for a logarithmic axis: every low rank, then fewer and fewer. */
  function ranks(count) {
    const chosen = [];
    for (let rank = 1; rank <= count; rank = Math.max(rank + 1, Math.floor(rank * 1.02))) chosen.push(rank);
    if (chosen[chosen.length - 1] !== count) chosen.push(count);
    return chosen;
  }

  function draw(result) {
    const { before, size, p } = seen_by_top_p(result);
    const mass = cumulative(before);
    const [width, height, left, bottom] = [width_of("top-p-chart"), 210, 34, 24];
    const x = (rank) => left + (mass.length === 1 ? 0 : Math.log(rank) / Math.log(mass.length)) * (width - left - 12);
    const y = (part) => 10 + (1 - part) * (height - 10 - bottom);
    const point = (rank) => [x(rank), y(mass[rank - 1])];
    const cut = size ?? mass.length;
    const inside = [...ranks(mass.length).filter((rank) => rank < cut), cut];
    const area = (chosen, name) =>
      svg("polygon", {
        class: name,
        points: [[x(chosen[0]), y(0)], ...chosen.map(point), [x(chosen[chosen.length - 1]), y(0)]].join(" "),
      });
    const parts = [
      area(inside, "area"),
      ...[0, 0.5, 1].flatMap((part) => [
        line(left, y(part), width - 12, y(part), "axis"),
        label(left - 6, y(part) + 4, String(part), "end"),
      ]),
      ...[1, 10, 100, 1000, 10000, 100000]
        .filter((rank) => rank <= mass.length)
        .map((rank) => label(x(rank), height - 6, integer(rank), rank === 1 ? "start" : "middle")),
      polyline(ranks(mass.length).map(point), "curve"),
      ...(size === null ? [] : cut_marks(x(cut), y(p), y(mass[cut - 1]), y(0), width, size, left)),
    ];
    const so_far = result.stages.some((stage) => stage.name === "top_k") ? "temperature and top-k" : "temperature";
    const text = size === null ? "top-p is off: nothing is cut here" : cut_text(size, mass[cut - 1], p);
    fill(
      "top-p-chart",
      picture(width, height, `Cumulative mass by rank; ${text}`, ...parts),
      el("p", { class: "hint" }, `Rank (logarithmic) against the mass of the tokens up to it, after ${so_far}; ${text}.`),
    );
  }

  const cut_text = (size, mass, p) => `the first ${integer(size)} hold ${fixed(mass, 4)}, which reaches p = ${p}`;

  function cut_marks(x, y_p, y_mass, y_0, width, size, left) {
    const marks = [
      line(left, y_p, width - 12, y_p, "rule"),
      line(x, 4, x, y_0, "mark"),
      svg("circle", { cx: x, cy: y_mass, r: 4, class: "dot" }),
    ];
    const right = x < width / 2;
    return [...marks, label(x + (right ? 8 : -8), y_0 - 8, `${integer(size)} kept`, right ? "start" : "end", "main")];
  }

  return { draw };
})();
