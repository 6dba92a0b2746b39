"use strict";
// One text as it comes from the server, step by step.
const text = (() => {
  /** on_prompt(tokens), on_step(step): called once for each, in order. */
  function make(on_prompt, on_step) {
    const found = { steps: [], prompt: null, end: null };

    /** Asks until the text is complete. What is there already, after a lost connection, is not added again. */
    async function read(body, signal, on_seed) {
      let count = 0;
      for await (const event of ask.trace(body, signal)) {
        signal.throwIfAborted();
        if (event.drawn_seed) on_seed(event.drawn_seed);
        else if (event.prompt_tokens) take_prompt(event.prompt_tokens);
        else if (event.step) take(event.step.page, count++);
        else found.end = event;
      }
    }

    function take_prompt(tokens) {
      if (found.prompt !== null) return;
      found.prompt = tokens;
      on_prompt(tokens);
    }

    function take(raw, index) {
      if (index === found.steps.length) {
        found.steps.push(steps.read(raw));
        on_step(found.steps[index]);
      } else if (found.steps[index].token !== raw.token) {
        throw new ask.Failure(`The server draws another token at step ${index + 1} now: its model has changed.`, 500);
      }
    }

    return Object.assign(found, { read });
  }

  return { make };
})();
