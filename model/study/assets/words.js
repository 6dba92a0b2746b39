"use strict";
// How tokens and numbers are written.
const words = (() => {
  const { el } = elements;
  const BITS = Math.log(2); // nats a bit
  const INVISIBLE = /[\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  const code = (c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  const vocabulary = { pieces: [] }; // of each token id; the page fills it

  const is_newline = (id) => vocabulary.pieces[id] === "<0x0A>" || vocabulary.pieces[id] === "\n";

  /** A token as the vocabulary writes it, without invisible characters. */
  function piece(id) {
    const text = vocabulary.pieces[id] ?? `<${id}>`;
    if (text === "<0x0A>") return "⏎ <0x0A>";
    return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(INVISIBLE, code) || "(empty)";
  }

  const short = (id) => (piece(id).length > 16 ? `${piece(id).slice(0, 15)}…` : piece(id));
  const token_el = (id) => el("bdi", {}, piece(id));
  const data_el = (id, value, text) => el("data", { id, value, class: "number" }, text);

  const integer = (n) => n.toLocaleString("en");
  const fixed = (n, digits) => n.toFixed(digits).replace("-", "−");
  const in_bits = (nats) => Math.max(nats, 0) / BITS;
  const bits = (nats) => fixed(in_bits(nats), 3);
  const surprisal = (logprob) => (logprob === null ? null : -logprob / BITS);
  const setting = (value) => (value === null ? "" : String(value));

  function percent(p) {
    if (p === 0) return "0";
    return p >= 0.001 ? `${(100 * p).toFixed(p >= 0.1 ? 1 : 2)} %` : p.toExponential(0).replace("-", "−");
  }

  return {
    ...{ bits, data_el, fixed, in_bits, integer, is_newline, percent, piece },
    ...{ setting, short, surprisal, token_el, vocabulary },
  };
})();
