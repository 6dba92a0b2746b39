"use strict";
// The arrow keys move between tokens, wherever on the page the focus is, unless what has it uses them itself.
const keys = (() => {
  const OWN_KEYS = "input, textarea, select, .scroll";

  /** moves: { key: function }; one that returns false leaves the key to the browser. */
  function on_keys(moves) {
    document.addEventListener("keydown", (event) => {
      const is_chord = event.ctrlKey || event.altKey || event.metaKey || event.shiftKey;
      if (is_chord || !(event.key in moves) || event.target.closest?.(OWN_KEYS)) return;
      if (moves[event.key]() !== false) event.preventDefault();
    });
  }

  return { on_keys };
})();
