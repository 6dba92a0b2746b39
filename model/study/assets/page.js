"use strict";
// The page shows the draws that engine.js computes from the embedded logits. Text of tokens becomes text nodes only.
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const STEPS = DATA.steps.map(read_step);
  const state = { step: 0, moved: {} }; // moved: the settings changed by the sliders, by name

  // ---- the embedded data ----

  const bytes_of = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

  function floats(base64) {
    const bytes = bytes_of(base64);
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  }

  /** A mask, Uint8Array [size], from its bits. */
  function mask_of(base64, size) {
    const bytes = bytes_of(base64);
    return Uint8Array.from({ length: size }, (_, v) => (bytes[v >> 3] >> (v & 7)) & 1);
  }

  /** The arrays of a step are decoded when it is shown and then dropped, since those of a long text are large. */
  function read_step(raw) {
    const step = { ...raw, bits: BigInt(raw.bits), total: BigInt(raw.total), u: BigInt(raw.u), cache: {} };
    const once = (name, make) => (step.cache[name] ??= make());
    step.row = () => once("row", () => read_row(raw));
    step.order = () =>
      once("order", () => engine.in_order(step.row().logits.map((x) => (Number.isNaN(x) ? -Infinity : x))));
    step.drawn = () => once("drawn", () => follow(step, raw.params));
    return step;
  }

  function read_row({ logits, allowed, changed }) {
    const x = floats(logits);
    return engine.row_of(x, allowed && mask_of(allowed, x.length), changed && floats(changed));
  }

  const follow = (step, params) => engine.follow(step.row(), params, step.bits);

  const current = () => STEPS[state.step];
  const params_now = () => ({ ...current().params, ...state.moved });
  const is_moved = () => Object.keys(state.moved).length > 0;

  // ---- text ----

  const BITS = Math.log(2); // nats a bit
  const INVISIBLE = /[\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  const code = (c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  const is_newline = (id) => DATA.pieces[id] === "<0x0A>" || DATA.pieces[id] === "\n";

  /** A token as the vocabulary writes it, without invisible characters. */
  function piece(id) {
    const text = DATA.pieces[id] ?? `<${id}>`;
    if (text === "<0x0A>") return "⏎ <0x0A>";
    return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(INVISIBLE, code) || "(empty)";
  }

  const integer = (n) => n.toLocaleString("en");
  const fixed = (n, digits) => n.toFixed(digits).replace("-", "−");
  const bits = (nats) => fixed(Math.max(nats, 0) / BITS, 3);

  function percent(p) {
    if (p === 0) return "0";
    return p >= 0.001 ? `${(100 * p).toFixed(p >= 0.1 ? 1 : 2)} %` : p.toExponential(0).replace("-", "−");
  }

  const setting = (value) => (value === null ? "" : String(value));

  // ---- elements ----

  function put(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  }

  const el = (tag, attributes = {}, ...children) => put(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) =>
    put(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  const $ = (id) => document.getElementById(id);
  const fill = (id, ...children) => $(id).replaceChildren(...children);
  const data_el = (id, value, text) => el("data", { id, value, class: "number" }, text);
  const token_el = (id) => el("bdi", {}, piece(id));
  const picture = (width, height, label, ...children) =>
    svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label }, ...children);
  const rect = (x, y, width, height, name) => svg("rect", { x, y, width: Math.max(width, 0), height, class: name });
  const line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: name });
  const label = (x, y, text, anchor = "start", name = null) =>
    svg("text", { x, y, "text-anchor": anchor, class: name }, text);
  const polyline = (points, name) => svg("polyline", { points: points.map((p) => p.join(",")).join(" "), class: name });

  const CHARTS = ["entropy-chart", "draw-chart", "top-p-chart"];
  const widths = {};
  const width_of = (id) => widths[id];

  /** All widths at once, before any drawing: measuring between two changes would force a layout each time. */
  function measure() {
    for (const id of CHARTS) widths[id] = Math.max($(id).clientWidth, 240);
  }

  // ---- the text with its surprisal ----

  const surprisal = (nats) => (nats === null ? null : -nats / BITS);
  const TALLEST = Math.max(
    8,
    ...DATA.prompt.map((token) => surprisal(token.logprob)),
    ...STEPS.map((step) => surprisal(step.model_logprob)),
  );
  const STRIP = 34;

  function surprisal_bar(amount) {
    const height = amount === null ? 0 : Math.max(1, (amount / TALLEST) * STRIP);
    const options = { viewBox: `0 0 10 ${STRIP}`, preserveAspectRatio: "none", "aria-hidden": "true" };
    return svg("svg", options, rect(0, STRIP - height, 10, height, null));
  }

  /** In the strip a space is faint and a newline is a single sign. */
  function strip_text(id) {
    const text = is_newline(id) ? "⏎" : piece(id);
    const spaces = text.match(/^▁*/)[0];
    return el("bdi", {}, el("span", { class: "space" }, spaces), text.slice(spaces.length));
  }

  function token_title(id, amount) {
    const cost = amount === null ? "no surprisal: nothing comes before it" : `${fixed(amount, 2)} bits`;
    return `${piece(id)}, id ${id}, ${cost}`;
  }

  function prompt_token({ id, logprob }) {
    const amount = surprisal(logprob);
    return el("span", { class: "token prompt", title: token_title(id, amount) }, surprisal_bar(amount), strip_text(id));
  }

  function step_token(step, index) {
    const amount = surprisal(step.model_logprob);
    const name = `step ${index + 1}: ${token_title(step.token, amount)}`;
    const options = { type: "button", class: "token", title: name, "aria-label": name };
    const button = el("button", options, surprisal_bar(amount), strip_text(step.token));
    button.addEventListener("click", () => choose(index));
    return button;
  }

  const breaks = (node, id) => (is_newline(id) ? [node, el("span", { class: "break" })] : [node]);

  function draw_strip() {
    const prompt = DATA.prompt.flatMap((token) => breaks(prompt_token(token), token.id));
    const steps = STEPS.flatMap((step, index) => breaks(step_token(step, index), step.token));
    fill("strip", ...prompt, ...steps);
  }

  function mark_strip() {
    $("strip")
      .querySelectorAll("button")
      .forEach((button, index) => {
        if (index === state.step) button.setAttribute("aria-current", "step");
        else button.removeAttribute("aria-current");
        button.tabIndex = index === state.step ? 0 : -1; // the Tab key stops once; the arrow keys move between tokens
      });
  }

  // ---- entropy over the steps ----

  const RAW_ENTROPY = STEPS.map(({ stages }) => Math.max(0, stages[0].entropy) / BITS);
  const FINAL_ENTROPY = STEPS.map(({ stages }) => Math.max(0, stages[stages.length - 1].entropy) / BITS);

  function draw_entropy(result) {
    const [width, height, left, bottom] = [width_of("entropy-chart"), 132, 30, 22];
    const now = engine.entropy_of(result.kept) / BITS;
    const most = Math.max(1, now, ...RAW_ENTROPY, ...FINAL_ENTROPY);
    const gap = (width - left - 8) / STEPS.length;
    const x = (i) => left + gap * (i + 0.5);
    const y = (value) => 8 + (1 - Math.max(0, value) / most) * (height - 8 - bottom);
    const lines = (values, name) =>
      polyline(
        values.map((value, i) => [x(i), y(value)]),
        `curve ${name}`,
      );
    const dots = (values, name) =>
      values.map((value, i) => svg("circle", { cx: x(i), cy: y(value), r: 3, class: `dot ${name}` }));
    const every = Math.ceil(STEPS.length / Math.max(1, Math.floor(width / 40)));
    const numbers = STEPS.flatMap((_, i) =>
      i % every === 0 ? [label(x(i), height - 6, String(i + 1), "middle")] : [],
    );
    const moved_entry = is_moved() ? [["other", "these settings"]] : [];
    const chart = picture(
      width,
      height,
      entropy_label(),
      rect(x(state.step) - Math.min(gap, 28) / 2, 4, Math.min(gap, 28), height - bottom, "here"),
      line(left, y(0), width - 8, y(0), "axis"),
      line(left, y(most), width - 8, y(most), "axis"),
      label(left - 6, y(0) + 4, "0", "end"),
      label(left - 6, y(most) + 4, most.toFixed(1), "end"),
      ...numbers,
      lines(RAW_ENTROPY, "raw"),
      ...dots(RAW_ENTROPY, "raw"),
      lines(FINAL_ENTROPY, "final"),
      ...dots(FINAL_ENTROPY, "final"),
      ...(is_moved() ? [svg("circle", { cx: x(state.step), cy: y(now), r: 5, class: "dot other" })] : []),
      ...STEPS.map((_, i) => entropy_hit(i, x(i) - gap / 2, gap, height)),
    );
    fill(
      "entropy-chart",
      chart,
      legend(["raw", "the model’s, in bits"], ["", "drawn from"], ...moved_entry),
    );
  }

  function entropy_label() {
    return `Entropy in bits, step by step. ${STEPS.map((_, i) => entropy_text(i)).join("; ")}`;
  }

  function entropy_text(i) {
    return `${i + 1}: ${RAW_ENTROPY[i].toFixed(3)}, drawn from ${FINAL_ENTROPY[i].toFixed(3)}`;
  }

  function entropy_hit(index, x, width, height) {
    const hit = rect(x, 0, width, height, "hit");
    hit.append(svg("title", {}, `step ${entropy_text(index)} bits`));
    hit.addEventListener("click", () => choose(index));
    return hit;
  }

  const legend = (...entries) =>
    el(
      "p",
      { class: "legend", "aria-hidden": "true" },
      ...entries.map(([name, text]) => el("span", {}, el("i", { class: name }), text)),
    );

  // ---- controls: a slider covers 0 .. 1000, a number input takes any exact value ----

  const END = 1000;
  const digits = (value, n) => Number(value.toPrecision(n));
  const logarithmic = (low, high, n) => [
    (at) => (at <= 0 ? 0 : digits(low * (high / low) ** ((at - 1) / (END - 1)), n)),
    (value) => (value <= 0 ? 0 : 1 + ((END - 1) * Math.log(value / low)) / Math.log(high / low)),
  ];
  const linear = (low) => [(at) => Math.max(low, at / END), (value) => value * END];
  const [k_from, k_to] = logarithmic(1, Math.max(2, DATA.pieces.length), 6);
  const whole = (low) => [(at) => Math.max(low, Math.round(k_from(at))), k_to];

  /** The control of a filter, from its line in the table of filters. */
  function filter_control({ name, off, is_whole, text, low, high, open_low, open_high }) {
    const inside = (v) => (open_low ? v > low : v >= low) && (high === null || (open_high ? v < high : v <= high));
    const share = off === 1 ? linear(open_low ? 0.001 : 0) : logarithmic(1e-6, open_high ? 0.9 : 1, 2);
    return {
      name,
      off,
      range: is_whole ? `an integer ${text}` : text,
      accepts: (v) => inside(v) && (!is_whole || Number.isSafeInteger(v)),
      scale: is_whole ? whole(low) : share,
    };
  }

  const CONTROLS = [
    {
      name: "temperature",
      off: 1,
      range: "0, or in [1e-6, 1e6]",
      accepts: (v) => v === 0 || (v >= 1e-6 && v <= 1e6),
      scale: logarithmic(0.05, 10, 3),
    },
    ...DATA.filters.map(filter_control),
    {
      name: "min_tokens_to_keep",
      off: 1,
      range: "an integer >= 1",
      accepts: (v) => Number.isSafeInteger(v) && v >= 1,
      scale: whole(1),
    },
  ];
  const MAIN_CONTROLS = ["temperature", "top_k", "top_p", "epsilon_cutoff"]; // the others are under "More filters"

  function make_control(control) {
    const { name } = control;
    const title = `${name.replaceAll("_", "-")} (${control.off}: off)`;
    [control.from, control.to] = control.scale;
    control.slider = el("input", {
      type: "range",
      id: `${name}-slider`,
      min: 0,
      max: END,
      step: 1,
      "aria-label": `${title}, slider`,
    });
    control.number = el("input", { type: "number", id: name, step: "any", min: 0, "aria-describedby": "problem" });
    control.slider.addEventListener("input", () =>
      set(control, control.from(Number(control.slider.value)), control.slider),
    );
    control.number.addEventListener("input", () => set(control, typed(control.number), control.number));
    control.box = el("div", { class: "control" }, el("label", { for: name }, title), control.slider, control.number);
    return control.box;
  }

  const typed = (input) => (input.value.trim() === "" ? NaN : Number(input.value));

  /** Set a value from one of a control's two inputs and update the other. */
  function set(control, value, source) {
    const accepted = control.accepts(value);
    control.number.setAttribute("aria-invalid", String(!accepted));
    fill("problem", accepted ? "" : `${control.name} must be ${control.range}`);
    if (!accepted) {
      $("reset").disabled = false; // the way back from an invalid number
      return;
    }
    if (value === current().params[control.name]) delete state.moved[control.name];
    else state.moved[control.name] = value;
    if (source !== control.number) control.number.value = String(value);
    show_slider(control, source);
    draw_step();
  }

  function show_slider(control, source) {
    const value = params_now()[control.name];
    if (source !== control.slider) control.slider.value = String(Math.round(control.to(value)));
    control.slider.setAttribute("aria-valuetext", String(value));
    control.box.classList.toggle("moved", control.name in state.moved);
  }

  function show_controls() {
    const params = params_now();
    for (const control of CONTROLS) {
      control.number.value = String(params[control.name]);
      control.number.removeAttribute("aria-invalid");
      show_slider(control, null);
    }
    fill("problem");
  }

  function make_controls() {
    const is_main = ({ name }) => MAIN_CONTROLS.includes(name);
    const folded = CONTROLS.filter((control) => !is_main(control));
    $("main-controls").append(...CONTROLS.filter(is_main).map(make_control));
    $("more-controls").append(...folded.map(make_control));
    $("more").open = folded.some(({ name, off }) => current().params[name] !== off);
    $("reset").addEventListener("click", reset);
    $("controls").addEventListener("submit", (event) => event.preventDefault());
  }

  function reset() {
    state.moved = {};
    show_controls();
    draw_step();
  }

  // ---- the draw, and the draw with these settings ----

  /** The share of the mass after the temperature that all filters kept. */
  function kept_mass({ stages, kept }) {
    const weighed = stages.find((stage) => stage.name === "temperature").kept;
    return Number(kept.total) / Number(weighed.total);
  }

  function comparison_rows(result, name) {
    const { kept, token, weight, total } = result;
    const choices = 2 ** (Math.max(0, engine.entropy_of(kept)) / BITS);
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
        ` of ${integer(current().row().logits.length)}`,
      ],
      "mass left": [data_el(`${name}-mass`, kept_mass(result), percent(kept_mass(result)))],
      entropy: [
        data_el(`${name}-entropy`, engine.entropy_of(kept), bits(engine.entropy_of(kept))),
        ` bits, like ${fixed(choices, 1)} equal choices`,
      ],
    };
  }

  function draw_comparison(drawn, result) {
    const columns = [comparison_rows(drawn, "drawn"), comparison_rows(result, "now")];
    const head = ["", el("span", { class: "main" }, "as drawn"), el("span", { class: "other" }, "these settings")];
    const body = Object.keys(columns[0]).map((name) =>
      el("tr", {}, el("th", { scope: "row" }, name), ...columns.map((column) => el("td", {}, ...column[name]))),
    );
    fill(
      "comparison",
      el("thead", {}, el("tr", {}, ...head.map((heading) => el("th", { scope: "col" }, heading)))),
      el("tbody", {}, ...body),
    );
    fill("sentence", ...sentence(drawn, result));
  }

  function sentence(drawn, result) {
    const was = ["Drawn: ", token_el(drawn.token)];
    if (!is_moved()) return [...was, ". Move a slider: same random bits, another distribution."];
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

  const short = (id) => (piece(id).length > 16 ? `${piece(id).slice(0, 15)}…` : piece(id));

  function draw_draw(drawn, result) {
    const width = width_of("draw-chart");
    const u = Number(drawn.u) / Number(drawn.total);
    const text = `u = ${u.toFixed(6)} falls in the interval of ${piece(drawn.token)}`;
    const lines = [
      ...draw_line(drawn, "main", 30, width),
      ...(is_moved() ? draw_line(result, "other", 88, width) : []),
    ];
    const shown = `u = ${u.toFixed(6)}, bits ${current().bits.toString(16).padStart(16, "0")}`;
    fill("draw-chart", picture(width, is_moved() ? 128 : 70, text, label(0, 12, shown), ...lines));
  }

  // ---- stages ----

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

  function stage_row({ name, value, kept }, before) {
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

  function draw_stages({ stages }) {
    const head = el("tr", {}, ...HEADINGS.map((heading) => el("th", { scope: "col" }, heading)));
    const rows = stages.map((stage, i) => stage_row(stage, stages[Math.max(0, i - 1)].kept));
    fill("stages", el("thead", {}, head), el("tbody", {}, ...rows));
  }

  // ---- the top-p curve ----

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

  function draw_top_p(result) {
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

  // ---- candidates ----

  /** The first tokens by raw rank, the token drawn, and the token that these settings draw. */
  function listed(drawn, result) {
    const order = current().order();
    const first = Array.from(order.subarray(0, current().top));
    const more = [drawn.token, result.token].filter((id, i, all) => !first.includes(id) && all.indexOf(id) === i);
    return [...first, ...more].map((id) => ({ id, rank: order.indexOf(id) + 1 })).sort((a, b) => a.rank - b.rank);
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

  function candidate_cell(probabilities, i, cut_at, most) {
    if (cut_at !== null && i > cut_at) return el("td", {}, "·");
    if (i === cut_at) return el("td", {}, bar(i ? probabilities[i - 1] : 0, most, true), "cut");
    return el("td", {}, bar(probabilities[i], most, false), percent(probabilities[i]));
  }

  function outcome(id, cut_by, drawn, result) {
    const kept = cut_by === null ? "kept" : `cut by ${cut_by}`;
    if (id === result.token && id === drawn.token) return is_moved() ? "drawn, both ways" : "drawn";
    if (id === drawn.token) return `drawn; ${kept}`;
    return id === result.token ? "would be drawn" : kept;
  }

  function candidate_row({ id, rank }, probabilities, most, drawn, result) {
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
      el("td", {}, fixed(current().row().logits[id], 3)),
      ...probabilities.map((_, i) => candidate_cell(probabilities, i, cut_at, most)),
      el("td", { class: "last" }, outcome(id, cut_by, drawn, result)),
    );
  }

  function others_row(ids, { stages }) {
    const place_mass = (kept) =>
      ids.reduce(
        (mass, id) => (engine.place_of(id, kept) < 0 ? mass : mass + BigInt(kept.w[engine.place_of(id, kept)])),
        0n,
      );
    const masses = stages.map(({ kept }) => Number(kept.total - place_mass(kept)) / Number(kept.total));
    const last = stages[stages.length - 1].kept;
    const left = last.ids.length - ids.filter((id) => engine.place_of(id, last) >= 0).length;
    const count = current().row().logits.length - ids.length;
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

  function draw_candidates(drawn, result) {
    const candidates = listed(drawn, result);
    const probabilities = candidates.map(({ id }) => result.stages.map(({ kept }) => engine.probability(id, kept)));
    const most = Math.max(...probabilities.flat());
    const stage_names = result.stages.map(({ name, value }) => `${name}${value === null ? "" : ` ${value}`}`);
    const headings = ["token, id", "rank", "logit", ...stage_names];
    const head = [
      ...headings.map((heading) => el("th", { scope: "col" }, heading)),
      el("th", { scope: "col", class: "last" }, "outcome"),
    ];
    const rows = candidates.map((candidate, i) => candidate_row(candidate, probabilities[i], most, drawn, result));
    const others =
      current().row().logits.length > candidates.length
        ? [others_row(candidates.map(({ id }) => id), result)]
        : [];
    fill("candidates", el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows, ...others));
  }

  // ---- the whole page ----

  function draw_step() {
    const drawn = current().drawn();
    const result = is_moved() ? follow(current(), params_now()) : drawn;
    fill("step-heading", `Step ${state.step + 1} of ${STEPS.length}: `, token_el(current().token));
    $("previous").disabled = state.step === 0;
    $("next").disabled = state.step === STEPS.length - 1;
    $("reset").disabled = !is_moved();
    draw_entropy(result);
    draw_comparison(drawn, result);
    draw_draw(drawn, result);
    draw_stages(result);
    draw_top_p(result);
    draw_candidates(drawn, result);
  }

  function choose(index) {
    const had_focus = $("strip").contains(document.activeElement);
    current().cache = {};
    state.step = Math.min(Math.max(index, 0), STEPS.length - 1);
    for (const name of Object.keys(state.moved)) {
      if (state.moved[name] === current().params[name]) delete state.moved[name];
    }
    mark_strip();
    show_controls();
    draw_step();
    if (had_focus) $("strip").querySelectorAll("button")[state.step].focus();
  }

  const KEYS = {
    ArrowLeft: () => state.step - 1,
    ArrowRight: () => state.step + 1,
    Home: () => 0,
    End: () => STEPS.length - 1,
  };

  /** Inputs and scrolling boxes use the keys themselves. */
  function on_key(event) {
    const taken =
      event.target.closest?.("input, .scroll") || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey;
    if (taken || !(event.key in KEYS)) return;
    event.preventDefault();
    choose(KEYS[event.key]());
  }

  function draw_head() {
    const tokens = `${STEPS.length} token${STEPS.length === 1 ? "" : "s"}`;
    fill("summary", `${tokens} drawn after a prompt of ${DATA.prompt.length}${DATA.ended ? "; the last one ends the text" : ""}.`);
    fill(
      "settings",
      ...Object.entries(DATA.settings).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
    );
  }

  const agrees = (step) => {
    const { token, weight, total, u, stages } = step.drawn();
    const left = stages.map(({ name, kept }) => `${name} ${kept.ids.length}`).join();
    const bits_again = engine.random_bits(...[step.seed, step.position, step.stream].map(BigInt));
    return (
      token === step.token &&
      weight === step.weight &&
      total === step.total &&
      u === step.u &&
      bits_again === step.bits &&
      left === step.stages.map(({ name, survivors }) => `${name} ${survivors}`).join()
    );
  };

  /** Repeat every draw and compare it with the engine's, one step at a time to keep the page responsive. */
  function check(index = 0, wrong = []) {
    if (index < STEPS.length) {
      const found = agrees(STEPS[index]) ? wrong : [...wrong, index + 1];
      if (index !== state.step) STEPS[index].cache = {};
      setTimeout(() => check(index + 1, found));
      return;
    }
    fill(
      "check",
      wrong.length
        ? `This page and the engine disagree at step ${wrong.join(", ")}: please report it.`
        : `Computed again in this page: all ${STEPS.length} draws equal the engine’s, integer for integer.`,
    );
  }

  draw_head();
  draw_strip();
  make_controls();
  $("previous").addEventListener("click", () => choose(state.step - 1));
  $("next").addEventListener("click", () => choose(state.step + 1));
  document.addEventListener("keydown", on_key);
  let drawn_at = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === drawn_at) return;
    drawn_at = window.innerWidth;
    measure();
    draw_step();
  });
  measure();
  choose(0);
  check();
})();
