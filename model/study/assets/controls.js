"use strict";
// The settings of a step: a slider covers 0 .. 1000, a number input takes any exact value.
const controls = (() => {
  const { $, el, fill } = elements;
  const MAIN = ["temperature", "top_k", "top_p", "epsilon_cutoff"]; // the others are under "More filters"
  const END = 1000;

  // A scale: the value at a place of the slider, and the place of a value.
  const digits = (value, n) => Number(value.toPrecision(n));
  const logarithmic = (low, high, n) => [
    (at) => (at <= 0 ? 0 : digits(low * (high / low) ** ((at - 1) / (END - 1)), n)),
    (value) => (value <= 0 ? 0 : 1 + ((END - 1) * Math.log(value / low)) / Math.log(high / low)),
  ];
  const linear = (low) => [(at) => Math.max(low, at / END), (value) => value * END];

  function whole(low, vocabulary) {
    const [from, to] = logarithmic(1, Math.max(2, vocabulary), 6);
    return [(at) => Math.max(low, Math.round(from(at))), to];
  }

  /** The control of a filter, from its line in the table of filters. */
  function of_filter({ name, off, is_whole, text, low, high, open_low, open_high }, vocabulary) {
    const inside = (v) => (open_low ? v > low : v >= low) && (high === null || (open_high ? v < high : v <= high));
    const share = off === 1 ? linear(open_low ? 0.001 : 0) : logarithmic(1e-6, open_high ? 0.9 : 1, 2);
    return {
      name,
      off,
      range: is_whole ? `an integer ${text}` : text,
      accepts: (v) => inside(v) && (!is_whole || Number.isSafeInteger(v)),
      scale: is_whole ? whole(low, vocabulary) : share,
    };
  }

  const list_of = (filters, vocabulary) => [
    {
      name: "temperature",
      off: 1,
      range: "0, or in [1e-6, 1e6]",
      accepts: (v) => v === 0 || (v >= 1e-6 && v <= 1e6),
      scale: logarithmic(0.05, 10, 3),
    },
    ...filters.map((filter) => of_filter(filter, vocabulary)),
    {
      name: "min_tokens_to_keep",
      off: 1,
      range: "an integer >= 1",
      accepts: (v) => Number.isSafeInteger(v) && v >= 1,
      scale: whole(1, vocabulary),
    },
  ];

  const typed = (input) => (input.value.trim() === "" ? NaN : Number(input.value));

  /** Fills the form. on_move(): called when a setting has another value. */
  function make(filters, vocabulary, on_move) {
    const all = list_of(filters, vocabulary);
    let drawn = {}; // the settings of the step that is shown
    let moved = {}; // those that differ, by name

    const params = () => ({ ...drawn, ...moved });
    const is_moved = () => Object.keys(moved).length > 0;

    function boxed(control) {
      const { name } = control;
      const title = `${name.replaceAll("_", "-")} (${control.off}: off)`;
      const range = { type: "range", min: 0, max: END, step: 1 };
      [control.from, control.to] = control.scale;
      control.slider = el("input", { ...range, id: `${name}-slider`, "aria-label": `${title}, slider` });
      control.number = el("input", { type: "number", id: name, step: "any", min: 0, "aria-describedby": "problem" });
      control.slider.addEventListener("input", () =>
        set(control, control.from(Number(control.slider.value)), control.slider),
      );
      control.number.addEventListener("input", () => set(control, typed(control.number), control.number));
      control.box = el("div", { class: "control" }, el("label", { for: name }, title), control.slider, control.number);
      return control.box;
    }

    /** Set a value from one of a control's two inputs and update the other. */
    function set(control, value, source) {
      const accepted = control.accepts(value);
      control.number.setAttribute("aria-invalid", String(!accepted));
      fill("problem", accepted ? "" : `${control.name} must be ${control.range}`);
      if (!accepted) {
        $("reset").disabled = false; // the way back from an invalid number
        return;
      }
      if (value === drawn[control.name]) delete moved[control.name];
      else moved[control.name] = value;
      if (source !== control.number) control.number.value = String(value);
      show_slider(control, source);
      on_move();
    }

    function show_slider(control, source) {
      const value = params()[control.name];
      if (source !== control.slider) control.slider.value = String(Math.round(control.to(value)));
      control.slider.setAttribute("aria-valuetext", String(value));
      control.box.classList.toggle("moved", control.name in moved);
    }

    function show() {
      const values = params();
      for (const control of all) {
        control.number.value = String(values[control.name]);
        control.number.removeAttribute("aria-invalid");
        show_slider(control, null);
      }
      fill("problem");
    }

    /** Another step, drawn with these settings. What was moved stays where it is. */
    function show_step(settings) {
      drawn = settings;
      for (const name of Object.keys(moved)) if (moved[name] === drawn[name]) delete moved[name];
      show();
    }

    function reset() {
      moved = {};
      show();
      on_move();
    }

    const is_main = ({ name }) => MAIN.includes(name);
    const folded = all.filter((control) => !is_main(control));
    $("main-controls").replaceChildren(...all.filter(is_main).map(boxed));
    $("more-controls").replaceChildren(...folded.map(boxed));
    $("reset").addEventListener("click", reset);
    $("controls").addEventListener("submit", (event) => event.preventDefault());

    /** Whether a setting that is folded away is on. */
    const uses_more = (settings) => folded.some(({ name, off }) => settings[name] !== off);
    return { is_moved, params, reset, show_step, uses_more };
  }

  return { make };
})();
