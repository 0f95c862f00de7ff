// Reads values under the pointer, or under a cursor that the arrow keys move.
"use strict";
for (const plot of document.querySelectorAll(".plot")) {
  const { box: [first, last, left, right, width], across, lines } = JSON.parse(plot.dataset.chart);
  const steps = [...new Set(lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  const figure = plot.closest("figure");
  const outputs = figure.querySelectorAll(".legend output");
  const cursor = plot.querySelector(".cursor");
  const at = figure.querySelector(".at");
  let index = steps.length - 1;

  // The last point of a line up to a step: lines have points at different steps.
  const valueAt = (line, step) => {
    const before = line.points.filter((point) => point[0] <= step);
    return before.length ? before[before.length - 1][1] : "–";
  };

  const show = (visible) => {
    const step = steps[index];
    const x = left + ((step - first) / (last - first)) * (right - left);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", visible ? "visible" : "hidden");
    at.textContent = `${across} ${step.toLocaleString("en")}`;
    lines.forEach((line, number) => { outputs[number].textContent = valueAt(line, step); });
  };

  const rest = () => { index = steps.length - 1; show(false); };

  plot.addEventListener("pointermove", (event) => {
    const area = plot.getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * width;
    const step = first + ((x - left) / (right - left)) * (last - first);
    index = steps.reduce((best, each, i) => (Math.abs(each - step) < Math.abs(steps[best] - step) ? i : best), 0);
    show(true);
  });
  plot.addEventListener("pointerleave", rest);
  plot.addEventListener("blur", rest);
  plot.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: steps.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    index = Math.min(Math.max(moves[event.key], 0), steps.length - 1);
    show(true);
    const values = lines.map((line) => `${line.label} ${valueAt(line, steps[index])}`);
    document.getElementById("chart-values").textContent = `step ${steps[index]}: ${values.join(", ")}`;
  });
  rest();
}
