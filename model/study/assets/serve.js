"use strict";
// The page of `alea serve`: a form, the answer to it as it comes, and the link that has both.
(() => {
  const { $, el, fill, measure, on_resize } = elements;
  const { in_bits, token_el } = words;
  const LANES = ["A", "B"];
  const SHOWN_WITH_A_TEXT = ["text-section", "entropy-section", "step"];
  const OTHER = "another model, chat template or version";
  const FINAL = [400, 403, 404, 413]; // refusals that asking again does not change

  let facts = null; // of the model, once the server has told
  let fields = null; // of the form
  let view = null;
  let answer = null;
  let tokens = null; // the strip
  let shown = null; // { index, lane }, of the step that the page shows
  let moved = null; // its entropy with moved sliders
  let differs = null; // the first position at which the texts differ

  // ---- asking ----

  function begin(request) {
    answer?.stop();
    answer = answers.make(request, {
      on_prompt: (prompt) => prompt.forEach(tokens.add_prompt),
      on_step: add_step,
      on_seed: keep_seed,
    });
    $("strip").replaceChildren();
    tokens = strip.make($("strip"), choose, answer.is_pair ? LANES : [""]);
    [shown, moved, differs] = [null, null, null];
    show_sections(false);
    for (const id of ["lane-keys", "lanes"]) $(id).hidden = !answer.is_pair;
    fill("difference");
    return go_on();
  }

  async function go_on() {
    const mine = answer;
    $("failure").hidden = true;
    $("stop-now").disabled = false;
    fill("check");
    fill("status", "Generating …");
    const failure = await mine.go_on().then(
      () => null,
      (error) => error,
    );
    if (mine !== answer) return;
    $("stop-now").disabled = true;
    fill("progress");
    fill("status", failure === null ? how_it_ended() : was_stopped(failure) ? `Stopped after ${counted()}.` : "");
    if (failure === null) note_difference();
    if (shown) show_head();
    if (failure !== null && !was_stopped(failure)) show_failure(failure);
    await check();
  }

  const was_stopped = (error) => error.name === "AbortError";
  const count_of = (texts) => texts.reduce((sum, text) => sum + text.steps.length, 0);
  const plural = (count) => `${count} token${count === 1 ? "" : "s"}`;
  const counted = () => plural(count_of(answer.texts));

  function how_it_ended() {
    const reason = ({ ended, finish_reason }) => {
      if (ended) return "the model ended it";
      return finish_reason === "stop" ? "a stop string ended it" : "as many as were asked for";
    };
    const told = answer.texts.map((text) => `${plural(text.steps.length)}: ${reason(text.end)}`);
    return `${answer.is_pair ? told.map((one, lane) => `${LANES[lane]}: ${one}`).join("; ") : told[0]}.`;
  }

  /** What came stays. */
  function show_failure(error) {
    const has_steps = answer !== null && count_of(answer.texts) > 0;
    $("failure").hidden = false;
    fill("failure-text", error.message, has_steps ? " What came is below." : "");
    fill("again", has_steps ? "Continue" : "Try again");
    $("again").hidden = FINAL.includes(error.status);
    if (error.status === 401) ask_for_key();
    if (!(error instanceof ask.Failure)) throw error;
  }

  function keep_seed() {
    $("seed").value = answer.request.seed;
    show_link(answer.request);
  }

  function show_link(request) {
    history.replaceState(null, "", link.write(request, fields.names, facts.system_fingerprint));
  }

  /** Repeats every draw of what came and compares it with the engine's. */
  async function check() {
    const mine = answer;
    const wrong = [];
    const count = count_of(mine.texts);
    for (const [lane, text] of mine.texts.entries()) {
      const found = await steps.disagreeing([...text.steps], view.shows);
      wrong.push(...found.map((number) => (mine.is_pair ? `${LANES[lane]} ${number}` : number)));
    }
    if (mine !== answer || count === 0 || count < count_of(mine.texts)) return; // asked again meanwhile
    fill(
      "check",
      wrong.length
        ? `This page and the engine disagree at step ${wrong.join(", ")}: please report it.`
        : `Computed again in this page: all ${count} draws equal the engine’s, integer for integer.`,
    );
  }

  // ---- showing ----

  function show_sections(are_shown) {
    for (const id of SHOWN_WITH_A_TEXT) $(id).hidden = !are_shown;
  }

  function add_step(step, lane) {
    tokens.add(step, lane);
    if (shown === null) {
      show_sections(true);
      measure();
      choose(0, lane);
    }
    fill("progress", ` ${answer.texts.map((text) => text.steps.length).join(" and ")} tokens so far`); // seen, not said
    note_difference();
    soon_draw_entropy();
  }

  /** Marks the first position at which two texts differ, and says what each draws there. */
  function note_difference() {
    if (!answer.is_pair || differs !== null) return;
    const { texts } = answer;
    differs = answers.first_difference(texts);
    if (differs === null) {
      if (texts.every(({ end }) => end)) fill("difference", "A and B are the same.");
      return;
    }
    tokens.mark_difference(differs);
    const [a, b] = texts.map((text) => text.steps[differs]);
    if (a && b) {
      const draws = ["A draws ", token_el(a.token), ", B draws ", token_el(b.token), "."];
      fill("difference", `The first difference is at step ${differs + 1}: `, ...draws);
    } else {
      fill("difference", `A and B are the same for ${plural(differs)}; then ${a ? "B" : "A"} ends.`);
    }
  }

  let is_due = false;

  /** Once a frame is enough, however many tokens come. */
  function soon_draw_entropy() {
    if (is_due) return;
    is_due = true;
    requestAnimationFrame(() => {
      is_due = false;
      if (shown === null) return;
      draw_entropy();
      show_head();
    });
  }

  function draw_entropy() {
    const raw = (text) => text.steps.map(({ stages }) => in_bits(stages[0].entropy));
    const drawn = (text) => text.steps.map(({ stages }) => in_bits(stages.at(-1).entropy));
    const [first] = answer.texts;
    const series = [
      { name: "raw", text: "the model’s, in bits", values: raw(first) },
      { name: "", text: "drawn from", values: drawn(first) },
    ];
    const pair = answer.texts.map((text, lane) => ({
      name: ["", "b"][lane],
      text: `${LANES[lane]}: drawn from, in bits`,
      values: drawn(text),
    }));
    entropy_chart.draw(answer.is_pair ? pair : series, {
      shown: shown.index,
      moved,
      on_choose: (index) => choose(index, shown.lane),
    });
  }

  function show_head() {
    const { index, lane } = shown;
    const text = answer.texts[lane];
    const whose = answer.is_pair ? `${LANES[lane]}, step` : "Step";
    const of = text.end ? ` of ${text.steps.length}` : "";
    view.head(`${whose} ${index + 1}${of}`, index > 0, index < text.steps.length - 1);
  }

  /** A token of a lane, or the nearest that there is. */
  function choose(index, lane = 0) {
    const all = answer.texts[lane].steps;
    if (!all.length) return;
    shown = { index: Math.min(Math.max(index, 0), all.length - 1), lane };
    tokens.mark(shown.index, lane);
    view.show(all[shown.index]);
    show_head();
  }

  // ---- the page ----

  /** Tells of the model, and takes the request that the link has. */
  function start(told_facts) {
    facts = told_facts;
    words.vocabulary.pieces = facts.pieces;
    fields = form.make(facts.defaults);
    view = step_view.make({
      filters: facts.filters,
      vocabulary: facts.pieces.length,
      on_draw: (entropy) => {
        moved = entropy;
        draw_entropy();
      },
      on_move: (by) => choose(shown.index + by, shown.lane),
    });
    $("kinds").hidden = !facts.has_chat;
    $("max_tokens").max = Math.min(facts.window, facts.most_steps);
    for (const id of ["generate", "another"]) $(id).disabled = false;
    $("failure").hidden = true;
    const told = { model: facts.model, fingerprint: facts.system_fingerprint, ...facts.versions };
    const described = ([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)));
    fill("settings", ...Object.entries(told).map(described));
    fill("summary", `Write a prompt, and watch ${facts.model} choose each token.`);
    take_link();
  }

  /** A link without a seed asks for nothing: it is not that of an answer. */
  function take_link() {
    try {
      const request = link.read(location.hash, fields.names);
      if (request === null) return;
      fields.show(request);
      const is_other = request.from !== "" && request.from !== facts.system_fingerprint;
      fill("warning", is_other ? `This link is from a server with ${OTHER}: the text may be another.` : "");
      if (request.seed !== "") begin(request);
    } catch (error) {
      fill("status", error.message);
    }
  }

  function ask_for_key() {
    $("key-form").hidden = false;
    $("key").focus();
  }

  const open = () => ask.model().then(start, show_failure);
  const again = () => (fields === null ? open() : go_on());

  /** A move from the token that is shown; false where there is none. */
  const moving = (to) => () => (shown === null ? false : to(shown.index, shown.lane));
  const changing_lane = (by) =>
    moving((index, lane) => (answer.texts[lane + by] === undefined ? false : choose(index, lane + by)));

  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const request = fields.read();
    show_link(request);
    fill("warning");
    begin(request);
  });
  $("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
  });
  $("another").addEventListener("click", () => {
    $("seed").value = "";
    $("ask").requestSubmit();
  });
  $("stop-now").addEventListener("click", () => answer.stop());
  $("again").addEventListener("click", again);
  $("copy").addEventListener("click", async () => {
    await navigator.clipboard?.writeText(location.href);
    fill("status", navigator.clipboard ? "The link is copied." : "The link is in the address bar.");
  });
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask.use_key($("key").value);
    $("key-form").hidden = true;
    again();
  });
  keys.on_keys({
    ArrowLeft: moving((index, lane) => choose(index - 1, lane)),
    ArrowRight: moving((index, lane) => choose(index + 1, lane)),
    ArrowUp: changing_lane(-1),
    ArrowDown: changing_lane(1),
    Home: moving((_, lane) => choose(0, lane)),
    End: moving((_, lane) => choose(Infinity, lane)),
  });
  window.addEventListener("hashchange", () => fields && take_link());
  on_resize(() => shown && view.draw());
  show_sections(false);
  open();
})();
