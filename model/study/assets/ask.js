"use strict";
// Asks the server that sent this page.
const ask = (() => {
  const KEY = "alea-key"; // in the storage of this tab, which ends with it

  /** Why there is no answer. status: of HTTP, 0 where the connection failed. */
  class Failure extends Error {
    constructor(message, status) {
      super(message);
      this.status = status;
    }
  }

  const use_key = (key) => sessionStorage.setItem(KEY, key);
  const lost = () => new Failure("The connection to the server was lost.", 0);

  async function request(path, options = {}) {
    const key = sessionStorage.getItem(KEY);
    const headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
    let reply;
    try {
      reply = await fetch(path, { ...options, headers });
    } catch (error) {
      throw error.name === "AbortError" ? error : lost();
    }
    if (!reply.ok) throw new Failure(await refusal(reply), reply.status);
    return reply;
  }

  async function refusal(reply) {
    const said = await reply.json().then(
      ({ error }) => error.message,
      () => reply.statusText,
    );
    return `The server refuses, with status ${reply.status}: ${said}.`;
  }

  const model = async () => (await request("v1/alea/model")).json();

  /** The events of a trace as they come; first { drawn_seed }. Throws a Failure where the last one is missing. */
  async function* trace(body, signal) {
    const reply = await request("v1/alea/trace", { method: "POST", body, signal });
    yield { drawn_seed: reply.headers.get("x-alea-seed") };
    const reader = reply.body.getReader();
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        throw error.name === "AbortError" ? error : lost();
      });
      if (done) throw lost();
      const events = (text + decoder.decode(value, { stream: true })).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const data = event.slice("data: ".length);
        if (data === "[DONE]") return;
        const found = JSON.parse(data);
        if (found.error) throw new Failure(`The server gave up: ${found.error.message}.`, 500);
        yield found;
      }
      await new Promise((resolve) => setTimeout(resolve)); // else a fast server leaves no time for clicks
    }
  }

  return { Failure, model, trace, use_key };
})();
