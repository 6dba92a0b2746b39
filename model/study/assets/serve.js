"use strict";
// The page of `alea serve`: asks for one text or two, shows them as they come, and keeps the request in its link.
(() => {
  const { $, el, fill, measure, on_resize } = elements;
  const { in_bits, token_el } = words;
  const LANES = ["A", "B"];
  const SHOWING = ["text-section", "entropy-section", "step"]; // hidden while there is no token

  let request_form = null; // known once the server has told of its model
  let view = null;
  let answer = null; // what is shown: see begin

  const drawn_entropy = ({ stages }) => in_bits(stages.at(-1).entropy);
  const raw_entropy = ({ stages }) => in_bits(stages[0].entropy);
  const is_comparison = () => answer.texts.length > 1;

  // ---- asking ----

  /** A new request: nothing of the last one stays. */
  function begin(request) {
    answer?.abort.abort();
    const compares = request.b !== null;
    $("strip").replaceChildren();
    const tokens = strip.make($("strip"), choose, compares ? LANES : [""]);
    answer = { request, tokens, shown: null, moved: null, differs: null, abort: null, texts: [] };
    const lanes = compares ? [0, 1] : [0];
    answer.texts = lanes.map((lane) => make_text(answer, lane));
    show_text(false);
    for (const id of ["lane-keys", "lanes"]) $(id).hidden = !compares;
    fill("difference");
    return go_on();
  }

  function make_text(mine, lane) {
    const add_prompt = (token) => lane === 0 && mine.tokens.add_prompt(token);
    return text.make(add_prompt, (step) => mine === answer && add_step(step, lane));
  }

  /** Asks for what is missing. The seed makes each text the same again. */
  async function go_on() {
    const mine = answer;
    mine.abort = new AbortController();
    show_failure(null);
    fill("check");
    $("stop-now").disabled = false;
    fill("status", "Generating …");
    try {
      await (is_comparison() ? read_both(mine) : read(mine, 0));
      if (mine === answer) show_end();
    } catch (error) {
      mine.abort.abort();
      if (mine === answer) show_failure(error);
    }
    if (mine !== answer) return;
    $("stop-now").disabled = true;
    fill("progress");
    await check();
  }

  async function read(mine, lane) {
    if (mine.texts[lane].end !== null) return;
    const body = form.body(mine.request, LANES[lane].toLowerCase());
    await mine.texts[lane].read(body, mine.abort.signal, (seed) => keep(mine, seed));
  }

  /** Both texts with one seed: where the server draws it, B waits until A has it. */
  async function read_both(mine) {
    if (mine.request.seed !== "") return Promise.all([read(mine, 0), read(mine, 1)]);
    let seed_is_known;
    const known = new Promise((resolve) => (seed_is_known = resolve));
    mine.on_seed = seed_is_known;
    const first = read(mine, 0);
    await Promise.race([known, first]);
    return Promise.all([first, read(mine, 1)]);
  }

  function keep(mine, seed) {
    if (mine !== answer) return;
    mine.request.seed = seed;
    $("seed").value = seed;
    history.replaceState(null, "", link.write(mine.request, request_form.names));
    mine.on_seed?.();
  }

  function show_end() {
    const reasons = answer.texts.map(({ end, steps }) => {
      const why = end.ended ? "the model ended it" : end.finish_reason === "stop" ? "a stop string ended it" : "as many as were asked for";
      return `${steps.length} token${steps.length === 1 ? "" : "s"}: ${why}`;
    });
    fill("status", is_comparison() ? reasons.map((one, lane) => `${LANES[lane]}: ${one}`).join("; ") : reasons[0], ".");
    note_difference();
    if (answer.shown) show_head();
  }

  function show_failure(error) {
    const stopped = error?.name === "AbortError";
    $("failure").hidden = error === null || stopped;
    if (error === null) return;
    const count = answer.texts.reduce((sum, { steps }) => sum + steps.length, 0);
    fill("status", stopped ? `Stopped after ${count} token${count === 1 ? "" : "s"}.` : "");
    if (stopped) return;
    fill("failure-text", error.message, count ? " What came is below." : "");
    show_again(error.status, count ? "Continue" : "Try again");
    if (error.status === 401) ask_for_key();
    if (!(error instanceof ask.Failure)) throw error;
  }

  /** What is wrong with a request stays wrong: then the form is to be changed. */
  function show_again(status, text) {
    $("again").hidden = [400, 403, 404, 413].includes(status);
    fill("again", text);
  }

  /** Repeats every draw of what came and compares it with the engine's. */
  async function check() {
    const mine = answer;
    const run = mine.abort;
    const wrong = [];
    let count = 0;
    for (const [lane, { steps: all }] of mine.texts.entries()) {
      const found = await steps.disagreeing(all, view.shows);
      wrong.push(...found.map((number) => (is_comparison() ? `${LANES[lane]} ${number}` : number)));
      count += all.length;
    }
    if (mine !== answer || run !== mine.abort || count === 0) return; // asked again meanwhile
    fill(
      "check",
      wrong.length
        ? `This page and the engine disagree at step ${wrong.join(", ")}: please report it.`
        : `Computed again in this page: all ${count} draws equal the engine’s, integer for integer.`,
    );
  }

  // ---- showing ----

  function show_text(is_shown) {
    for (const id of SHOWING) $(id).hidden = !is_shown;
  }

  function add_step(step, lane) {
    const is_first = answer.shown === null;
    answer.tokens.add(step, lane);
    if (is_first) {
      show_text(true);
      measure();
      choose(answer.texts[lane].steps.length - 1, lane);
    }
    fill("progress", ` ${answer.texts.map(({ steps }) => steps.length).join(" and ")} tokens so far`); // seen, not said
    note_difference();
    soon_draw_entropy();
  }

  /** Marks the first position at which A and B differ, once both are there. */
  function note_difference() {
    if (!is_comparison() || answer.differs !== null) return;
    const [a, b] = answer.texts.map(({ steps }) => steps);
    const both = Math.min(a.length, b.length);
    const at = a.findIndex((step, i) => i < both && step.token !== b[i].token);
    const ended = answer.texts.every(({ end }) => end !== null);
    if (at >= 0) {
      const token = (one) => token_el(one[at].token);
      fill("difference", `The first difference is at step ${at + 1}: A draws `, token(a), ", B draws ", token(b), ".");
    } else if (ended && a.length !== b.length) {
      fill("difference", `A and B are the same for ${both} tokens; then one of them ends.`);
    } else {
      if (ended) fill("difference", "A and B are the same.");
      return;
    }
    answer.differs = at >= 0 ? at : both;
    answer.tokens.mark_difference(answer.differs);
  }

  let is_due = false;

  /** Once a frame is enough, however many tokens come. */
  function soon_draw_entropy() {
    if (is_due) return;
    is_due = true;
    requestAnimationFrame(() => {
      is_due = false;
      if (answer.shown) draw_entropy();
      if (answer.shown) show_head();
    });
  }

  function draw_entropy() {
    const [first] = answer.texts;
    const series = is_comparison()
      ? answer.texts.map(({ steps }, lane) => ({
          name: LANES[lane].toLowerCase(),
          text: `${LANES[lane]}: drawn from, in bits`,
          values: steps.map(drawn_entropy),
        }))
      : [
          { name: "raw", text: "the model’s, in bits", values: first.steps.map(raw_entropy) },
          { name: "", text: "drawn from", values: first.steps.map(drawn_entropy) },
        ];
    const { shown, moved } = answer;
    entropy_chart.draw(series, { shown: shown.index, moved, on_choose: (index) => choose(index, shown.lane) });
  }

  function show_head() {
    const { index, lane } = answer.shown;
    const { steps, end } = answer.texts[lane];
    const whose = is_comparison() ? `${LANES[lane]}, step` : "Step";
    const title = `${whose} ${index + 1}${end ? ` of ${steps.length}` : ""}`;
    view.head(title, index > 0, index < steps.length - 1);
  }

  /** A token of a lane, the nearest that there is. */
  function choose(index, lane = 0) {
    const { steps } = answer.texts[lane];
    if (!steps.length) return;
    answer.shown = { index: Math.min(Math.max(index, 0), steps.length - 1), lane };
    answer.tokens.mark(answer.shown.index, lane);
    view.show(steps[answer.shown.index]);
    show_head();
  }

  // ---- the page ----

  /** Moves from the token that is shown; false where there is none. */
  const moving = (to) => () => {
    if (!answer?.shown) return false;
    const { index, lane } = answer.shown;
    return to(index, lane);
  };
  const between_lanes = (by) =>
    moving((index, lane) => (answer.texts[lane + by] === undefined ? false : choose(index, lane + by)));

  function fill_from_link() {
    try {
      const request = link.read(location.hash, request_form.names);
      if (request === null) return;
      request_form.show(request);
      if (request.seed !== "") begin(request); // the link of an answer; without a seed nothing is asked unseen
    } catch (error) {
      fill("status", error.message);
    }
  }

  function ask_for_key() {
    $("key-form").hidden = false;
    $("key").focus();
  }

  async function open() {
    try {
      show_facts(await ask.model());
    } catch (error) {
      $("failure").hidden = false;
      fill("failure-text", error.message);
      show_again(error.status, "Try again");
      if (error.status === 401) ask_for_key();
      if (!(error instanceof ask.Failure)) throw error;
    }
  }

  function show_facts(facts) {
    words.vocabulary.pieces = facts.pieces;
    request_form = form.make(facts.defaults);
    view = step_view.make({
      filters: facts.filters,
      vocabulary: facts.pieces.length,
      on_draw: (moved) => {
        answer.moved = moved;
        draw_entropy();
      },
      on_move: (by) => choose(answer.shown.index + by, answer.shown.lane),
    });
    $("kinds").hidden = !facts.has_chat;
    $("max_tokens").max = Math.min(facts.window, facts.most_steps);
    for (const id of ["generate", "another"]) $(id).disabled = false;
    $("failure").hidden = true;
    const told = { model: facts.model, fingerprint: facts.system_fingerprint, ...facts.versions };
    fill(
      "settings",
      ...Object.entries(told).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))),
    );
    fill("summary", `Write a prompt, and watch ${facts.model} choose each token.`);
    fill_from_link();
  }

  $("another").addEventListener("click", () => {
    $("seed").value = "";
    $("ask").requestSubmit();
  });
  $("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
  });
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const request = request_form.read();
    history.replaceState(null, "", link.write(request, request_form.names));
    begin(request);
  });
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask.use_key($("key").value);
    $("key-form").hidden = true;
    again();
  });
  const again = () => (request_form === null ? open() : answer ? go_on() : undefined);
  $("again").addEventListener("click", again);
  $("stop-now").addEventListener("click", () => answer.abort.abort());
  $("copy").addEventListener("click", async () => {
    await navigator.clipboard?.writeText(location.href);
    fill("status", navigator.clipboard ? "The link is copied." : "The link is in the address bar.");
  });
  keys.on_keys({
    ArrowLeft: moving((index, lane) => choose(index - 1, lane)),
    ArrowRight: moving((index, lane) => choose(index + 1, lane)),
    ArrowUp: between_lanes(-1),
    ArrowDown: between_lanes(1),
    Home: moving((_, lane) => choose(0, lane)),
    End: moving((_, lane) => choose(Infinity, lane)),
  });
  window.addEventListener("hashchange", () => request_form && fill_from_link());
  on_resize(() => answer?.shown && view.draw());
  show_text(false);
  open();
})();
