"use strict";
// The page of `alea trace --html`: one text, from the data in the page.
(() => {
  const { $, el, fill, measure, on_resize } = elements;
  const { in_bits } = words;
  const DATA = JSON.parse($("data").textContent);
  words.vocabulary.pieces = DATA.pieces;
  const STEPS = DATA.steps.map(steps.read);
  const SERIES = [
    { name: "raw", text: "the model’s, in bits", values: STEPS.map(({ stages }) => in_bits(stages[0].entropy)) },
    { name: "", text: "drawn from", values: STEPS.map(({ stages }) => in_bits(stages.at(-1).entropy)) },
  ];
  let shown = 0;

  const text = strip.make($("strip"), choose);
  const view = step_view.make({
    filters: DATA.filters,
    vocabulary: DATA.pieces.length,
    on_draw: (moved) => entropy_chart.draw(SERIES, { shown, moved, on_choose: choose }),
    on_move: (by) => choose(shown + by),
  });

  function choose(index) {
    shown = Math.min(Math.max(index, 0), STEPS.length - 1);
    text.mark(shown);
    view.show(STEPS[shown]);
    view.head(`Step ${shown + 1} of ${STEPS.length}`, shown > 0, shown < STEPS.length - 1);
  }

  function draw_head() {
    const tokens = `${STEPS.length} token${STEPS.length === 1 ? "" : "s"}`;
    const end = DATA.ended ? "; the last one ends the text" : "";
    fill("summary", `${tokens} drawn after a prompt of ${DATA.prompt.length}${end}.`);
    fill(
      "settings",
      ...Object.entries(DATA.settings).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
    );
  }

  /** Repeat every draw and compare it with the engine's. */
  async function check() {
    const wrong = await steps.disagreeing(STEPS, view.shows);
    fill(
      "check",
      wrong.length
        ? `This page and the engine disagree at step ${wrong.join(", ")}: please report it.`
        : `Computed again in this page: all ${STEPS.length} draws equal the engine’s, integer for integer.`,
    );
  }

  draw_head();
  DATA.prompt.forEach(text.add_prompt);
  STEPS.forEach((step) => text.add(step));
  keys.on_keys({
    ArrowLeft: () => choose(shown - 1),
    ArrowRight: () => choose(shown + 1),
    Home: () => choose(0),
    End: () => choose(STEPS.length - 1),
  });
  measure();
  on_resize(view.draw);
  choose(0);
  check();
})();
