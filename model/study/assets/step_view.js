"use strict";
// One step as the page shows it: its settings, its draw, every stage and every candidate.
const step_view = (() => {
  const { $, fill } = elements;
  const { in_bits, token_el } = words;

  /**
   * filters, vocabulary: for the controls. on_draw(moved): called after every drawing with the entropy of the moved
   * settings in bits, or null. on_move(by): asks for another step.
   */
  function make({ filters, vocabulary, on_draw, on_move }) {
    const settings = controls.make(filters, vocabulary, () => draw());
    let step = null;

    function draw() {
      if (step === null) return;
      const drawn = step.drawn();
      const is_moved = settings.is_moved();
      const result = is_moved ? step.follow(settings.params()) : drawn;
      const seen = { step, drawn, result, is_moved };
      $("reset").disabled = !is_moved;
      on_draw(is_moved ? in_bits(engine.entropy_of(result.kept)) : null);
      comparison.draw(seen);
      stage_table.draw(result);
      top_p_chart.draw(result);
      candidate_table.draw(seen);
    }

    /** Another step. */
    function show(next) {
      if (step === null) $("more").open = settings.uses_more(next.params);
      else if (step !== next) step.drop();
      step = next;
      settings.show_step(step.params);
      draw();
    }

    /** title: what stands before its token. */
    function head(title, has_previous, has_next) {
      fill("step-heading", `${title}: `, token_el(step.token));
      $("previous").disabled = !has_previous;
      $("next").disabled = !has_next;
    }

    $("previous").addEventListener("click", () => on_move(-1));
    $("next").addEventListener("click", () => on_move(1));
    return { draw, head, show, shows: (one) => one === step };
  }

  return { make };
})();
