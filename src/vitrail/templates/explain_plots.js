// Plots: plain SVG in the colours of the page.
const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes, parent, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function ticksFor(top) {
  const rough = top / 4, ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * ten).find((n) => n >= rough);
  const found = [];
  for (let value = 0; value <= top * 1.0001; value += step) found.push(value);
  return found;
}

// Axes of a plot; the functions x and y go from values to its units.
function axes(parent, { width, height, top, right, xTicks, xLabel, yLabel, format }) {
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}` }, parent);
  const box = { left: 46, top: 10, right: width - 12, bottom: height - 36 };
  const x = (value) => box.left + value / right * (box.right - box.left);
  const y = (value) => box.bottom - value / top * (box.bottom - box.top);
  for (const value of ticksFor(top)) {
    draw("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }, svg);
    draw("text", { class: "tick", x: box.left - 7, y: y(value) + 4, "text-anchor": "end" }, svg, format(value));
  }
  for (const [value, label] of xTicks) draw("text", { class: "tick", x: x(value), y: box.bottom + 16, "text-anchor": "middle" }, svg, label);
  draw("text", { class: "axis", x: (box.left + box.right) / 2, y: height - 4, "text-anchor": "middle" }, svg, xLabel);
  if (yLabel) draw("text", { class: "axis", x: 0, y: 0, "text-anchor": "middle", transform: `translate(11 ${(box.top + box.bottom) / 2}) rotate(-90)` }, svg, yLabel);
  return { svg, x, y, box };
}

const CURVES = {
  deletion: ["Deletion", "Pixels go, those that the map calls important first. The faster the model loses its answer, the better the map.", "smaller is better"],
  insertion: ["Insertion", "Pixels come, those that the map calls important first. The faster the model finds its answer, the better the map.", "greater is better"],
};

// A deletion or insertion curve beside that of a random order.
function curvePlot(curve, target) {
  const [title, words, better] = CURVES[curve.kind], root = make("figure", "plot");
  make("h3", "", root, title);
  make("p", "small muted", root, words);
  const { svg, x, y, box } = axes(root, { width: 380, height: 230, top: 1, right: 1, xTicks: [0, 0.25, 0.5, 0.75, 1].map((v) => [v, `${100 * v} %`]), xLabel: "share of the pixels", yLabel: "", format: (v) => `${Math.round(100 * v)} %` });
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${curve.kind} curve: area ${say(curve.area)}, random ${say(curve.randomArea)}`);
  const path = (values) => values.map((value, i) => `${i ? "L" : "M"}${x(curve.shares[i]).toFixed(2)} ${y(value).toFixed(2)}`).join("");
  draw("path", { class: "area", d: `${path(curve.values)}L${x(1)} ${y(0)}L${x(0)} ${y(0)}Z` }, svg);
  draw("path", { class: "line random", d: path(curve.random) }, svg);
  draw("path", { class: "line ours", d: path(curve.values) }, svg);
  const rule = draw("line", { class: "rule", y1: box.top, y2: box.bottom, visibility: "hidden" }, svg);
  const dots = ["ours", "random"].map((name) => draw("circle", { class: `dot ${name}`, r: 4, visibility: "hidden" }, svg));
  const key = make("p", "key", root);
  const areas = ["this map", "random"].map((name, i) => {
    const part = make("span", "", key);
    make("i", i ? "random" : "ours", part);
    part.append(`${name} `);
    return make("b", "", part);
  });
  const told = make("p", "small muted told", root);
  const idle = () => {
    [rule, ...dots].forEach((one) => one.setAttribute("visibility", "hidden"));
    areas[0].textContent = say(curve.area);
    areas[1].textContent = say(curve.randomArea);
    told.textContent = `Area below the curve: ${better}.`;
  };
  idle();
  svg.addEventListener("pointermove", (event) => {
    const matrix = svg.getScreenCTM();
    const share = Math.max(0, Math.min(1, ((event.clientX - matrix.e) / matrix.a - box.left) / (box.right - box.left)));
    let i = 0;
    curve.shares.forEach((value, j) => { if (Math.abs(value - share) < Math.abs(curve.shares[i] - share)) i = j; });
    rule.setAttribute("x1", x(curve.shares[i]));
    rule.setAttribute("x2", x(curve.shares[i]));
    [curve.values, curve.random].forEach((values, j) => {
      dots[j].setAttribute("cx", x(curve.shares[i]));
      dots[j].setAttribute("cy", y(values[i]));
      areas[j].textContent = percent(values[i]);
    });
    [rule, ...dots].forEach((one) => one.setAttribute("visibility", "visible"));
    told.textContent = `Probability of ${target} with ${percent(curve.shares[i])} of the pixels ${curve.kind === "deletion" ? "gone" : "there"}.`;
  });
  svg.addEventListener("pointerleave", idle);
  return root;
}

// How far each head looks, layer by layer.
function distancePlot(parent, small) {
  const { layers, numbers, pixels, images } = DATA.distances;
  const root = make("figure", "plot wide", parent);
  make("h2", "", root, "How far each head looks");
  make("p", "muted", root, `Mean distance from a patch to what it looks at, weighted by its attention, over ${images === 1 ? "one image" : `${images} images`}. A head near the bottom looks around itself, as a convolution would; one at the top looks at the whole image. Each dot is a head; ${touch ? "tap" : "click"} one to see it at work.`);
  const all = pixels.flat().filter((value) => value !== null);
  const step = Math.ceil(layers.length / (small ? 9 : 14));
  const { svg, x, y } = axes(root, {
    width: small ? 360 : 760, height: small ? 300 : 400, top: 1.08 * Math.max(...all, 1e-9), right: layers.length + 0.5,
    xTicks: layers.map((_, i) => [i + 0.75, `${i + 1}`]).filter((_, i) => i % step === 0),
    xLabel: "layer", yLabel: "pixels", format: (v) => `${Number(v.toPrecision(3))}`,
  });
  const told = make("p", "told", root, "\u00a0");
  pixels.forEach((heads, i) => {
    const known = heads.filter((value) => value !== null), mean = known.reduce((a, b) => a + b, 0) / known.length;
    if (known.length) draw("line", { class: "mean", x1: x(i + 0.5), x2: x(i + 1), y1: y(mean), y2: y(mean) }, svg);
    heads.forEach((value, h) => {
      if (value === null) return;
      const spread = heads.length > 1 ? (h / (heads.length - 1) - 0.5) * 0.34 : 0;
      const dot = draw("circle", { class: "dot head", cx: x(i + 0.75 + spread), cy: y(value), r: 4.5, tabindex: 0, role: "button", "aria-label": `${layers[i]}, head ${h + 1}: ${say(value)} pixels` }, svg);
      const tell = () => { told.textContent = `${layers[i]}, head ${h + 1}: ${say(value)} pixels in the mean`; told.dataset.value = value; };
      const go = () => change({ tab: "attention", layer: numbers[i], head: h });
      dot.addEventListener("pointerenter", tell);
      dot.addEventListener("focus", tell);
      dot.addEventListener("click", go);
      dot.addEventListener("keydown", (event) => event.key === "Enter" && go());
    });
  });
}
