"use strict";
// The form of a request: what it holds as texts, and as the bodies that the server reads.
const form = (() => {
  const { $, el } = elements;
  const MAIN = ["temperature", "top_k", "top_p", "epsilon_cutoff"]; // the others are under "More settings"
  const PANES = ["a", "b"];
  const LISTED = 12; // candidates
  const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

  /** defaults: of the model, by the names of its settings, which are the fields of a pane. */
  function make(defaults) {
    const names = Object.keys(defaults);
    const id_of = (pane, name) => `${pane}-${name}`;

    function field(pane, name) {
      const id = id_of(pane, name);
      const options = { type: "number", id, step: "any", placeholder: String(defaults[name]) };
      return el("label", { for: id }, name.replaceAll("_", "-"), el("input", options));
    }

    for (const pane of PANES) {
      const folded = names.filter((name) => !MAIN.includes(name));
      $(`pane-${pane}`).append(
        el("div", { class: "fields" }, ...MAIN.map((name) => field(pane, name))),
        el(
          "details",
          { id: `more-${pane}` },
          el("summary", {}, "More settings"),
          el("div", { class: "fields" }, ...folded.map((name) => field(pane, name))),
        ),
      );
    }

    function message_box({ role, content }) {
      const select = el(
        "select",
        { "aria-label": "role" },
        ...link.ROLES.map((one) => el("option", { value: one }, one)),
      );
      const text = el("textarea", { rows: 2, "aria-label": "message" });
      const remove = el("button", { type: "button", "aria-label": "remove this message" }, "×");
      const box = el("div", { class: "message" }, select, text, remove);
      [select.value, text.value] = [role, content];
      remove.addEventListener("click", () => box.remove());
      return box;
    }

    function messages() {
      return [...$("messages").children].map((box) => ({
        role: box.querySelector("select").value,
        content: box.querySelector("textarea").value,
      }));
    }

    const kind = () => document.querySelector("[name=kind]:checked").value;

    function show_kind() {
      $("prompt-box").hidden = kind() !== "prompt";
      $("messages-box").hidden = kind() !== "messages";
    }

    function show_panes() {
      const compares = $("compare").checked;
      $("pane-b").hidden = !compares;
      $("pane-a").querySelector("legend").textContent = compares ? "Settings of A" : "Settings";
    }

    function show_rule() {
      const chosen = $("grammar").selectedOptions[0];
      $("rule-box").hidden = chosen.value === "";
      $("rule-name").textContent = chosen.textContent;
    }

    const settings = (pane) =>
      Object.fromEntries(names.map((name) => [name, $(id_of(pane, name)).value]).filter(([, value]) => value !== ""));

    function read() {
      return {
        ...(kind() === "prompt" ? { prompt: $("prompt").value } : { messages: messages() }),
        max_tokens: $("max_tokens").value,
        seed: $("seed").value.trim(),
        stop: $("stop").value,
        grammar: $("grammar").value,
        rule: $("grammar").value && $("rule").value,
        a: settings("a"),
        b: $("compare").checked ? settings("b") : null,
      };
    }

    function show(request) {
      document.querySelector(`[name=kind][value=${request.messages ? "messages" : "prompt"}]`).checked = true;
      if (request.messages) $("messages").replaceChildren(...request.messages.map(message_box));
      else $("prompt").value = request.prompt;
      for (const name of link.COMMON) $(name).value = request[name];
      for (const pane of PANES) {
        for (const name of names) $(id_of(pane, name)).value = request[pane]?.[name] ?? "";
        $(`more-${pane}`).open = names.some((name) => !MAIN.includes(name) && request[pane]?.[name]);
      }
      $("compare").checked = request.b !== null;
      show_kind();
      show_panes();
      show_rule();
    }

    for (const radio of document.querySelectorAll("[name=kind]")) radio.addEventListener("change", show_kind);
    $("compare").addEventListener("change", show_panes);
    $("grammar").addEventListener("change", show_rule);
    $("add-message").addEventListener("click", () => {
      const last = messages().at(-1)?.role;
      $("messages").append(message_box({ role: last === "user" ? "assistant" : "user", content: "" }));
      $("messages").lastChild.querySelector("textarea").focus();
    });
    $("messages").append(message_box({ role: "user", content: "" }));
    return { names, read, show };
  }

  /** A number as it is written: a seed may have more digits than a number of JavaScript. */
  const value_of = (text) => (NUMBER.test(text) ? text : JSON.stringify(text));

  /** The body of /v1/alea/trace for one pane. What is no number is sent as a text, for the server to refuse by name. */
  function body(request, pane) {
    const fields = Object.entries({ ...request[pane], max_tokens: request.max_tokens, seed: request.seed });
    const [stop, choice] = [request.stop, request.rule].map((text) => text.split("\n").filter((line) => line !== ""));
    const rule = request.grammar === "choice" ? choice : request.rule;
    const rest = {
      ...(request.messages ? { messages: request.messages } : { prompt: request.prompt }),
      ...(stop.length ? { stop } : {}),
      ...(request.grammar ? { structured_outputs: { [request.grammar]: rule } } : {}),
      ...{ stream: true, logits: true, top: LISTED },
    };
    const numbers = fields.filter(([, text]) => text !== "").map(([name, text]) => `"${name}":${value_of(text)}`);
    return `{${[...numbers, JSON.stringify(rest).slice(1)].join(",")}`;
  }

  return { body, make };
})();
