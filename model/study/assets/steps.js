"use strict";
// The steps of a trace, as `step_data` of model/study/trace_page.py writes them, and their draws, computed again.
const steps = (() => {
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

  function read_row({ logits, allowed, changed }) {
    const x = floats(logits);
    return engine.row_of(x, allowed && mask_of(allowed, x.length), changed && floats(changed));
  }

  /** The arrays of a step are decoded when it is shown and then dropped, since those of a long text are large. */
  function read(raw) {
    const step = { ...raw, bits: BigInt(raw.bits), total: BigInt(raw.total), u: BigInt(raw.u), cache: {} };
    const once = (name, make) => (step.cache[name] ??= make());
    step.row = () => once("row", () => read_row(raw));
    step.order = () =>
      once("order", () => engine.in_order(step.row().logits.map((x) => (Number.isNaN(x) ? -Infinity : x))));
    step.follow = (params) => engine.follow(step.row(), params, step.bits);
    step.drawn = () => once("drawn", () => step.follow(raw.params));
    step.drop = () => (step.cache = {});
    return step;
  }

  /** Whether this page's draw is the engine's. */
  function agrees(step) {
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
  }

  /** Repeats every draw, one at a time to keep the page responsive. is_shown: keeps its arrays. -> numbers, from 1 */
  async function disagreeing(all, is_shown) {
    const wrong = [];
    for (const [index, step] of all.entries()) {
      if (!agrees(step)) wrong.push(index + 1);
      if (!is_shown(step)) step.drop();
      await new Promise((resolve) => setTimeout(resolve));
    }
    return wrong;
  }

  return { disagreeing, read };
})();
