"use strict";
// The answer to a request: one text, or two with the same random bits.
const answers = (() => {
  /** on_prompt(tokens), on_step(step, lane), on_seed(): called as they come; the seed is then in the request. */
  function make(request, { on_prompt, on_step, on_seed }) {
    const panes = request.b === null ? ["a"] : ["a", "b"];
    const texts = panes.map((_, lane) => text.make(show_prompt, (step) => on_step(step, lane)));
    let has_prompt = false;
    let abort = new AbortController();

    /** Of whichever text comes first. */
    function show_prompt(tokens) {
      if (!has_prompt) on_prompt(tokens);
      has_prompt = true;
    }

    async function read(lane) {
      if (texts[lane].end !== null) return;
      await texts[lane].read(form.body(request, panes[lane]), abort.signal, take_seed).catch((error) => {
        if (texts.length > 1 && error.status === 400) error.message = `${panes[lane].toUpperCase()}: ${error.message}`;
        throw error;
      });
    }

    let seed_is_known = () => {};

    function take_seed(seed) {
      request.seed = seed;
      on_seed();
      seed_is_known();
    }

    /** Both texts have one seed: where the server draws it, the second waits until the first has it. */
    async function read_all() {
      const known = new Promise((resolve) => (seed_is_known = resolve));
      const first = read(0);
      if (texts.length > 1 && request.seed === "") await Promise.race([known, first]);
      await Promise.all([first, ...texts.slice(1).map((_, i) => read(i + 1))]);
    }

    /** Asks for what is missing. The seed makes each text the same again. Throws what ended it. */
    async function go_on() {
      abort = new AbortController();
      try {
        await read_all();
      } finally {
        abort.abort(); // where one text fails, the other ends as well
      }
    }

    return { request, texts, go_on, stop: () => abort.abort(), is_pair: texts.length > 1 };
  }

  /** The first position at which two texts differ, or at which one of them has ended; null while there is none. */
  function first_difference([a, b]) {
    const both = Math.min(a.steps.length, b.steps.length);
    const at = a.steps.findIndex((step, i) => i < both && step.token !== b.steps[i].token);
    if (at >= 0) return at;
    return a.end && b.end && a.steps.length !== b.steps.length ? both : null;
  }

  return { first_difference, make };
})();
