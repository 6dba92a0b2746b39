"use strict";
// Entropy over the steps, a line for each series.
const entropy_chart = (() => {
  const { circle, fill, label, legend, line, picture, polyline, rect, svg, width_of } = elements;
  const ID = "entropy-chart";
  const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [132, 30, 8, 8, 22];

  /**
   * series: [{ name, text, values }], in bits; name is a class. shown: the index of the step that the page shows.
   * moved: its entropy with other settings, or null. on_choose(index): called for a step that is clicked.
   */
  function draw(series, { shown, moved, on_choose }) {
    const width = width_of(ID);
    const count = Math.max(...series.map(({ values }) => values.length));
    const most = Math.max(1, moved ?? 0, ...series.flatMap(({ values }) => values));
    const gap = (width - LEFT - RIGHT) / count;
    const x = (i) => LEFT + gap * (i + 0.5);
    const y = (value) => TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);
    const every = Math.ceil(count / Math.max(1, Math.floor(width / 40)));
    const positions = Array.from({ length: count }, (_, i) => i);
    const text = (i) => `step ${i + 1}: ${series.flatMap((one) => told(one, i)).join(", ")} bits`;
    const chart = picture(
      width,
      HEIGHT,
      `Entropy. ${positions.map(text).join("; ")}`,
      rect(x(shown) - Math.min(gap, 28) / 2, 4, Math.min(gap, 28), HEIGHT - BOTTOM, "here"),
      line(LEFT, y(0), width - RIGHT, y(0), "axis"),
      line(LEFT, y(most), width - RIGHT, y(most), "axis"),
      label(LEFT - 6, y(0) + 4, "0", "end"),
      label(LEFT - 6, y(most) + 4, most.toFixed(1), "end"),
      ...positions.filter((i) => i % every === 0).map((i) => label(x(i), HEIGHT - 6, String(i + 1), "middle")),
      ...series.flatMap(({ name, values }) => [
        polyline(
          values.map((value, i) => [x(i), y(value)]),
          `curve ${name}`,
        ),
        ...values.map((value, i) => circle(x(i), y(value), 3, `dot ${name}`)),
      ]),
      ...(moved === null ? [] : [circle(x(shown), y(moved), 5, "dot other")]),
      ...positions.map((i) => hit(x(i) - gap / 2, gap, text(i), () => on_choose(i))),
    );
    const entries = series.map(({ name, text }) => [name, text]);
    fill(ID, chart, legend(...entries, ...(moved === null ? [] : [["other", "these settings"]])));
  }

  const told = ({ text, values }, i) => (i < values.length ? [`${text} ${values[i].toFixed(3)}`] : []);

  function hit(x, width, text, on_click) {
    const area = rect(x, 0, width, HEIGHT, "hit");
    area.append(svg("title", {}, text));
    area.addEventListener("click", on_click);
    return area;
  }

  return { draw };
})();
