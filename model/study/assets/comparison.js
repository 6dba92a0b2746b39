"use strict";
// The draw of a step beside the draw that the same random bits give with other settings, as numbers and as a line.
const comparison = (() => {
  const { el, fill, label, line, picture, rect, svg, width_of } = elements;
  const { bits, data_el, fixed, in_bits, integer, percent, piece, short, token_el } = words;

  /** The share of the mass after the temperature that all filters kept. */
  function kept_mass({ stages, kept }) {
    const weighed = stages.find((stage) => stage.name === "temperature").kept;
    return Number(kept.total) / Number(weighed.total);
  }

  function rows(result, name, vocabulary) {
    const { kept, token, weight, total } = result;
    const entropy = engine.entropy_of(kept);
    const p = weight / Number(total);
    return {
      token: [
        el("data", { id: `${name}-token`, value: token }, token_el(token)),
        el("span", { class: "id" }, ` id ${token}`),
      ],
      "p, final": [data_el(`${name}-p`, p, percent(p))],
      "weight / total": [
        data_el(`${name}-weight`, weight, integer(weight)),
        " / ",
        data_el(`${name}-total`, total, integer(total)),
      ],
      "tokens left": [
        data_el(`${name}-survivors`, kept.ids.length, integer(kept.ids.length)),
        ` of ${integer(vocabulary)}`,
      ],
      "mass left": [data_el(`${name}-mass`, kept_mass(result), percent(kept_mass(result)))],
      entropy: [
        data_el(`${name}-entropy`, entropy, bits(entropy)),
        ` bits, like ${fixed(2 ** in_bits(entropy), 1)} equal choices`,
      ],
    };
  }

  function draw_table(drawn, result, vocabulary) {
    const columns = [rows(drawn, "drawn", vocabulary), rows(result, "now", vocabulary)];
    const head = ["", el("span", { class: "main" }, "as drawn"), el("span", { class: "other" }, "these settings")];
    const body = Object.keys(columns[0]).map((name) =>
      el("tr", {}, el("th", { scope: "row" }, name), ...columns.map((column) => el("td", {}, ...column[name]))),
    );
    fill(
      "comparison",
      el("thead", {}, el("tr", {}, ...head.map((heading) => el("th", { scope: "col" }, heading)))),
      el("tbody", {}, ...body),
    );
  }

  function sentence({ drawn, result, is_moved }) {
    const was = ["Drawn: ", token_el(drawn.token)];
    if (!is_moved) return [...was, ". Move a slider: same random bits, another distribution."];
    if (result.token === drawn.token) return [...was, ", and the same with these settings."];
    return [
      ...was,
      ". With these settings the same random bits draw ",
      el("strong", { class: "other" }, token_el(result.token)),
      ".",
    ];
  }

  /** The line 0 .. 1 with the tokens' intervals in id order, and u. */
  function draw_line(result, name, y, width) {
    const total = Number(result.total);
    const parts = [rect(0, y, width, 18, "segment")];
    let at = 0;
    result.kept.w.forEach((w, i) => {
      const size = (w / total) * width;
      if (i % 2 && size >= 0.7) parts.push(rect(at, y, size, 18, "segment even"));
      at += size;
    });
    const [low, high] = engine.interval(result.kept, result.place).map((end) => (Number(end) / total) * width);
    parts.push(rect(Math.min(low, width - 2), y, Math.max(2, high - low), 18, `segment ${name}`));
    const u = (Number(result.u) / total) * width;
    const interval = `${fixed(low / width, 4)} – ${fixed(high / width, 4)}`;
    const anchor = u > width / 2 ? "end" : "start";
    const text = svg(
      "text",
      { x: anchor === "end" ? width : 0, y: y + 34, "text-anchor": anchor, class: name },
      svg("tspan", {}, short(result.token)),
      ` has ${interval}`,
    );
    parts.push(
      line(u, y - 5, u, y + 23, "rule"),
      svg("path", { d: `M${u - 5},${y - 8}h10l-5,7z`, class: `segment ${name}` }),
      text,
    );
    return parts;
  }

  function draw_lines({ step, drawn, result, is_moved }) {
    const width = width_of("draw-chart");
    const u = Number(drawn.u) / Number(drawn.total);
    const text = `u = ${u.toFixed(6)} falls in the interval of ${piece(drawn.token)}`;
    const lines = [
      ...draw_line(drawn, "main", 30, width),
      ...(is_moved ? draw_line(result, "other", 88, width) : []),
    ];
    const shown = `u = ${u.toFixed(6)}, bits ${step.bits.toString(16).padStart(16, "0")}`;
    fill("draw-chart", picture(width, is_moved ? 128 : 70, text, label(0, 12, shown), ...lines));
  }

  /** seen: { step, drawn, result, is_moved }. */
  function draw(seen) {
    draw_table(seen.drawn, seen.result, seen.step.row().logits.length);
    fill("sentence", ...sentence(seen));
    draw_lines(seen);
  }

  return { draw };
})();
