"use strict";
// Makes elements of HTML and SVG. Text becomes text nodes only, whatever it holds.
const elements = (() => {
  function put(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  }

  const el = (tag, attributes = {}, ...children) => put(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) =>
    put(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  const $ = (id) => document.getElementById(id);
  const fill = (id, ...children) => $(id).replaceChildren(...children);

  const picture = (width, height, label, ...children) =>
    svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label }, ...children);
  const rect = (x, y, width, height, name) => svg("rect", { x, y, width: Math.max(width, 0), height, class: name });
  const line = (x1, y1, x2, y2, name) => svg("line", { x1, y1, x2, y2, class: name });
  const circle = (cx, cy, r, name) => svg("circle", { cx, cy, r, class: name });
  const label = (x, y, text, anchor = "start", name = null) =>
    svg("text", { x, y, "text-anchor": anchor, class: name }, text);
  const polyline = (points, name) => svg("polyline", { points: points.map((p) => p.join(",")).join(" "), class: name });
  const legend = (...entries) =>
    el(
      "p",
      { class: "legend", "aria-hidden": "true" },
      ...entries.map(([name, text]) => el("span", {}, el("i", { class: name }), text)),
    );

  const widths = {};
  const width_of = (id) => widths[id];

  /** The widths of all charts before any drawing: measuring between two changes would force a layout each time. */
  function measure() {
    for (const chart of document.querySelectorAll(".chart")) widths[chart.id] = Math.max(chart.clientWidth, 240);
  }

  /** Measures again and calls back whenever the page has another width. */
  function on_resize(redraw) {
    let drawn_at = window.innerWidth;
    window.addEventListener("resize", () => {
      if (window.innerWidth === drawn_at) return;
      drawn_at = window.innerWidth;
      measure();
      redraw();
    });
  }

  return { $, circle, el, fill, label, legend, line, measure, on_resize, picture, polyline, rect, svg, width_of };
})();
