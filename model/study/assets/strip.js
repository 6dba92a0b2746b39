"use strict";
// The tokens of a text side by side, each under a bar of its surprisal. Two texts after one prompt are two lanes: the
// tokens of a position stand one above the other.
const strip = (() => {
  const { el, svg, rect } = elements;
  const { fixed, is_newline, piece, surprisal } = words;
  const HEIGHT = 34;
  const LEAST_TALL = 8; // bits

  /** A space is faint, and a newline is a single sign. */
  function text_of(id) {
    const text = is_newline(id) ? "⏎" : piece(id);
    const spaces = text.match(/^▁*/)[0];
    return el("bdi", {}, el("span", { class: "space" }, spaces), text.slice(spaces.length));
  }

  function title_of(id, amount) {
    const cost = amount === null ? "no surprisal: nothing comes before it" : `${fixed(amount, 2)} bits`;
    return `${piece(id)}, id ${id}, ${cost}`;
  }

  function bar_of(amount, tallest) {
    const height = amount === null ? 0 : Math.max(1, (amount / tallest) * HEIGHT);
    const options = { viewBox: `0 0 10 ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
    return svg("svg", options, rect(0, HEIGHT - height, 10, height, null));
  }

  /** A strip in a node. on_choose(index, lane) is called for a token that is clicked; names: of the lanes. */
  function make(node, on_choose, names = [""]) {
    const bars = []; // [svg, amount]
    const cells = []; // of each position after the prompt
    const buttons = names.map(() => []); // of each lane
    let tallest = LEAST_TALL;

    function scaled(amount) {
      if (amount > tallest) {
        tallest = amount;
        for (const bar of bars) bar[0].replaceWith((bar[0] = bar_of(bar[1], tallest)));
      }
      bars.push([bar_of(amount, tallest), amount]);
      return bars[bars.length - 1][0];
    }

    const break_after = (token) => token.after(el("span", { class: "break" }));

    function add_prompt({ id, logprob }) {
      const amount = surprisal(logprob);
      const options = { class: "token prompt", title: title_of(id, amount) };
      const token = el("span", options, scaled(amount), text_of(id));
      node.append(token);
      if (is_newline(id)) break_after(token);
    }

    function cell_at(index) {
      if (!cells[index]) {
        if (index === 0 && names.length > 1) node.append(el("span", { class: "break" })); // the lanes begin a line
        cells[index] = el("span", { class: "cell" }, ...names.map(() => el("span", { class: "lane" })));
        node.append(cells[index]);
      }
      return cells[index];
    }

    function add(step, lane = 0) {
      const index = buttons[lane].length;
      const amount = surprisal(step.model_logprob);
      const where = names[lane] ? `${names[lane]}, step ${index + 1}` : `step ${index + 1}`;
      const name = `${where}: ${title_of(step.token, amount)}`;
      const options = { type: "button", class: "token", title: name, "aria-label": name, tabindex: -1 };
      const button = el("button", options, scaled(amount), text_of(step.token));
      button.addEventListener("click", () => on_choose(index, lane));
      buttons[lane].push(button);
      const cell = cell_at(index);
      cell.children[lane].append(button);
      if (is_newline(step.token) && names.length === 1) break_after(cell); // two lanes stay aligned
    }

    /** The token that is shown. The Tab key stops once; the arrow keys move between tokens. */
    function mark(index, lane = 0) {
      const had_focus = node.contains(document.activeElement);
      for (const button of node.querySelectorAll("[aria-current]")) {
        button.removeAttribute("aria-current");
        button.tabIndex = -1;
      }
      const button = buttons[lane][index];
      button.setAttribute("aria-current", "step");
      button.tabIndex = 0;
      if (had_focus) button.focus();
    }

    /** The first position at which the lanes differ. */
    function mark_difference(index) {
      cells[index].classList.add("differs");
    }

    return { add, add_prompt, mark, mark_difference };
  }

  return { make };
})();
