"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const [gridRows, gridColumns] = page.grid;
const state = { query: page.start, language: root.dataset.lang };
const image = new Image();

/* Words */
const said = (pair) => pair[state.language === "zh" ? 1 : 0];
const word = (key, facts = {}) =>
  said(page.words[key]).replace(/\{(\w+)\}/g, (_, name) => facts[name]);

/* Numbers: 32 bits as they are, or bytes between the bounds of each entry of the first axis. */
function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
function decode(packed) {
  if (packed.values) return packed;
  packed.size = packed.shape.slice(1).reduce((a, b) => a * b, 1);
  packed.values = "f4" in packed ? new Float32Array(bytes(packed.f4).buffer) : bytes(packed.u1);
  return packed;
}
function entry(packed) {
  const { values, size, shape, bounds } = decode(packed);
  const at = shape[0] === 1 ? 0 : state.query;
  const part = values.subarray(at * size, (at + 1) * size);
  if (!bounds) return part;
  const [low, high] = decode(bounds).values.subarray(2 * at, 2 * at + 2);
  return Float32Array.from(part, (v) => (v === 255 ? NaN : low + ((high - low) * v) / 254));
}
function number(v, digits = 4) {
  const size = Math.abs(v);
  let text;
  if (v === 0) text = "0";
  else if (size < 0.5 * 10 ** -digits || size >= 1e5) text = v.toExponential(digits > 4 ? 2 : 0);
  else text = v.toFixed(size < 10 ? digits : Math.min(digits, size < 1000 ? 2 : 1));
  return text.replace(/-/g, "\u2212");
}

/* Small helpers for the document */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    name === "class" ? (node.className = value) : node.setAttribute(name, value);
  node.append(...children);
  return node;
}
function drawing(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
function tint(cell, share) {
  const ink = share < 0 ? "--first" : "--second";
  const percent = Math.round(Math.min(Math.abs(share), 1) * 38);
  cell.style.background = `color-mix(in srgb, var(${ink}) ${percent}%, transparent)`;
  cell.classList.add("tint");
}
const scrolled = (table, item) =>
  make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": said(item.caption) }, table);
/* A narrow screen has room for less of a vector; products that are left out join the rest. */
const narrow = matchMedia("(max-width: 40rem)");
const fits = (count) => (narrow.matches ? Math.round(count * 0.4) : count);

/* Colours */
const VIRIDIS = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"]
  .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
function mixed(anchors, v) {
  const x = Math.min(Math.max(v, 0), 1) * (anchors.length - 1), i = Math.min(Math.floor(x), anchors.length - 2);
  return anchors[i].map((a, c) => Math.round(a + (anchors[i + 1][c] - a) * (x - i)));
}
const viridis = (v) => mixed(VIRIDIS, v);
const signed = (v) => mixed([[10, 106, 168], [247, 247, 247], [179, 74, 5]], (v + 1) / 2);

/* The image and its places. A view spans whole cells; it may reach beyond the image. */
const [imageHeight, imageWidth] = page.image.size;
const view = { width: gridColumns * page.stride, height: gridRows * page.stride };
/* A line of text needs the width of the page. */
const line = view.width >= 2.5 * view.height, large = line ? 672 : 272, small = line ? 320 : 128;
const centre = () => {
  const cell = page.queries[state.query];
  return [(Math.floor(cell / gridColumns) + 0.5) * page.stride, ((cell % gridColumns) + 0.5) * page.stride];
};
function cellOn(grid, stride) {
  const [y, x] = centre();
  return [Math.min(Math.floor(y / stride), grid[0] - 1), Math.min(Math.floor(x / stride), grid[1] - 1)];
}
const rowsColumns = (cell) => ({ row: Math.floor(cell / gridColumns), column: cell % gridColumns });
/* People count from one, as on the page of `vitrail explain`. */
const told = ({ row, column }) => ({ row: row + 1, column: column + 1 });
function nearest(row, column) {
  let best = 0, least = Infinity;
  page.queries.forEach((cell, i) => {
    const at = rowsColumns(cell), far = (at.row - row) ** 2 + (at.column - column) ** 2;
    if (far < least) [best, least] = [i, far];
  });
  return best;
}
function canvas(width, name) {
  const ratio = window.devicePixelRatio || 1;
  const node = make("canvas", { role: "img", "aria-label": name });
  node.width = Math.round(width * ratio);
  node.height = Math.max(1, Math.round((width * ratio * view.height) / view.width));
  node.classList.add("drawn");
  node.style.aspectRatio = `${view.width} / ${view.height}`;
  return node;
}
function paint(node, grey) {
  const pen = node.getContext("2d"), scale = node.width / view.width;
  pen.imageSmoothingEnabled = Math.max(imageHeight, imageWidth) > 64;
  pen.filter = grey ? "grayscale(1)" : "none";
  pen.drawImage(image, 0, 0, imageWidth * scale, imageHeight * scale);
  pen.filter = "none";
  return [pen, scale];
}
function outline(pen, x, y, width, height, thick = 2) {
  const ratio = window.devicePixelRatio || 1;
  pen.lineWidth = (thick + 2) * ratio;
  pen.strokeStyle = "#000c";
  pen.strokeRect(x, y, width, height);
  pen.lineWidth = thick * ratio;
  pen.strokeStyle = "#fff";
  pen.strokeRect(x, y, width, height);
}
function outlineCell(pen, scale, grid, stride, thick) {
  const [row, column] = cellOn(grid, stride), side = stride * scale;
  outline(pen, column * side, row * side, side, side, thick);
}
const pointer = (node, event) => {
  const box = node.getBoundingClientRect();
  return [((event.clientY - box.top) / box.height) * view.height, ((event.clientX - box.left) / box.width) * view.width];
};
function choosable(node) {
  node.addEventListener("click", (event) => {
    const [y, x] = pointer(node, event);
    select(nearest(Math.floor(y / page.stride), Math.floor(x / page.stride)));
    picker.focus({ preventScroll: true });
  });
  return node;
}

/* Maps */
function range(item, values) {
  let low = item.low ?? Infinity, high = item.high ?? -Infinity;
  for (const v of values) {
    if (Number.isNaN(v)) continue;
    if (item.low === null && v < low) low = v;
    if (item.high === null && v > high) high = v;
  }
  return [low, high];
}
function heat(item, width) {
  const values = entry(item.values), [low, high] = range(item, values);
  const node = choosable(canvas(width, said(item.caption)));
  const [pen, scale] = paint(node, true);
  const side = item.stride * scale, span = high - low || 1;
  values.forEach((v, i) => {
    const row = Math.floor(i / item.grid[1]), column = i % item.grid[1];
    pen.fillStyle = Number.isNaN(v) ? "rgb(0 0 0 / .55)" : `rgb(${viridis((v - low) / span).join(" ")} / .78)`;
    const x = Math.floor(column * side), y = Math.floor(row * side);
    pen.fillRect(x, y, Math.floor((column + 1) * side) - x, Math.floor((row + 1) * side) - y);
  });
  outlineCell(pen, scale, item.grid, item.stride, width > 150 ? 2 : 1);
  return { node, values, low, high };
}
function pointed(node, item, values, line, prefix = "") {
  node.addEventListener("mousemove", (event) => {
    const [y, x] = pointer(node, event);
    const row = Math.floor(y / item.stride), column = Math.floor(x / item.stride);
    const v = values[row * item.grid[1] + column];
    line.textContent = v === undefined ? "" : `${prefix}${word("cell", told({ row, column }))}: ${Number.isNaN(v) ? "–" : number(v)}`;
  });
  node.addEventListener("mouseleave", () => { line.textContent = ""; });
}
const legend = (low, high) =>
  make("div", { class: "legend" }, number(low), make("i", { class: "map" }), number(high));
const facts = (rows) => {
  const list = make("dl", { class: "beside" });
  for (const [name, value] of rows) {
    const text = typeof value === "string" ? value : number(entry(value)[0], 6);
    list.append(make("dt", {}, said(name)), make("dd", {}, make("b", {}, text)));
  }
  return list;
};

/* One function a kind of item */
const kinds = {
  rows(item) {
    const body = make("tbody");
    for (const row of item.rows) {
      const all = entry(row.values), values = all.subarray(0, fits(all.length)), most = Math.max(...values.map(Math.abs)) || 1;
      const line = make("tr", { class: row.sign === "=" ? "equals" : "" });
      line.append(make("td", { class: "sign" }, row.sign), make("th", { scope: "row" }, said(row.name)));
      for (const v of values) {
        const cell = make("td", {}, number(v));
        tint(cell, v / most);
        line.append(cell);
      }
      if (row.width > values.length)
        line.append(make("td", { class: "more" }, word("more", { n: row.width })));
      body.append(line);
    }
    return scrolled(make("table", { class: "numbers" }, body), item);
  },
  corner(item) {
    const raw = entry(item.raw), normalised = entry(item.normalised);
    const [rows, columns] = item.raw.shape.slice(2);
    const box = make("div", { class: "corner" });
    const table = (values, channel, digits) => {
      const body = make("tbody");
      for (let y = 0; y < rows; y++) {
        const line = make("tr");
        for (let x = 0; x < columns; x++) {
          const v = values[(channel * rows + y) * columns + x];
          const cell = make("td", {}, digits ? number(v, digits) : String(v));
          if (digits) tint(cell, v / 2.6);
          line.append(cell);
        }
        body.append(line);
      }
      return make("table", { class: "numbers" }, body);
    };
    item.channels.forEach((name, i) =>
      box.append(make("div", {}, make("h4", {}, name), make("div", { class: "twin" },
        make("div", {}, make("p", {}, word("raw")), table(raw, i, 0)),
        make("div", {}, make("p", {}, word("normalised")), table(normalised, i, 2))))));
    return box;
  },
  dot(item) {
    const all = entry(item.x), w = entry(item.w), x = all.subarray(0, fits(all.length));
    const rest = entry(item.rest)[0] + [...all].slice(x.length).reduce((sum, v, i) => sum + v * w[x.length + i], 0);
    const left = make("tr", {}, make("th", { scope: "row" }, said(item.left)));
    const right = make("tr", {}, make("th", { scope: "row" }, `× ${said(item.right)}`));
    const sum = make("tr", { class: "equals" }, make("th", { scope: "row" }, "="));
    x.forEach((v, i) => {
      left.append(make("td", {}, number(v)));
      right.append(make("td", {}, number(w[i])));
      sum.append(make("td", {}, make("strong", {}, number(v * w[i]))));
    });
    const more = item.count - x.length;
    if (more > 0) {
      left.append(make("td", { class: "more" }, "…"));
      right.append(make("td", { class: "more" }, "…"));
      sum.append(make("td", {}, make("span", { class: "more" }, `${word("rest", { n: more })} `), make("strong", {}, number(rest))));
    }
    const total = entry(item.total)[0], real = entry(item.real)[0];
    const products = [...x].map((v, i) => v * w[i]);
    const terms = more > 0 ? [...products, rest] : products;
    const chain = terms.map((v, i) => (i ? (v < 0 ? ` − ${number(-v)}` : ` + ${number(v)}`) : number(v))).join("");
    const bias = item.bias === null ? "" : ` ${item.bias < 0 ? "−" : "+"} ${number(Math.abs(item.bias))} (${word("bias")})`;
    return make("div", {}, scrolled(make("table", { class: "numbers" }, make("tbody", {}, left, right, sum)), item),
      make("p", { class: "result mono" }, `${chain}${bias} = ${number(total, 5)}`),
      make("p", { class: "result" },
        make("span", {}, `${word("total")} `, make("b", {}, number(total, 6))),
        make("span", {}, `${word("real")} `, make("b", {}, number(real, 6))),
        make("span", {}, `${word("difference")} `, make("b", {}, number(total - real, 6)))));
  },
  keys(item) {
    const q = entry(item.q), k = entry(item.k), rests = entry(item.rest), n = q.length, shown = narrow.matches ? 1 : n;
    const score = entry(item.score), weight = entry(item.weight), bias = item.bias && entry(item.bias);
    const places = item.place[state.query], own = cellOn(item.grid, page.stride);
    const name = (cell) => {
      if (cell < -100) return "0";
      if (cell < 0) return said(item.others[-1 - cell]);
      const row = Math.floor(cell / item.grid[1]), column = cell % item.grid[1];
      return row === own[0] && column === own[1] ? word("self") : word("cell", told({ row, column }));
    };
    const head = make("tr", {}, make("th", { scope: "row" }, "q"));
    for (const v of q.subarray(0, shown)) head.append(make("td", {}, number(v, 3)));
    const others = item.width > shown && !narrow.matches;
    if (others) head.append(make("td", { class: "more" }, word("rest", { n: item.width - shown })));
    const columns = ["product"];
    if (!narrow.matches && item.scale !== 1) columns.push("scaled");
    if (!narrow.matches && bias) columns.push("bias");
    if (narrow.matches || bias) columns.push("score");
    for (const label of [...columns, "weight"])
      head.append(make("th", { scope: "col", class: "number" }, word(label)));
    const body = make("tbody", {}, head);
    const seen = new Set();
    places.forEach((cell, i) => {
      if (seen.has(cell)) return;
      seen.add(cell);
      const line = make("tr", {}, make("th", { scope: "row" }, name(cell)));
      let product = rests[i], rest = rests[i];
      for (let j = 0; j < n; j++) {
        const v = k[i * n + j];
        product += q[j] * v;
        if (j >= shown) rest += q[j] * v;
        else line.append(make("td", {}, make("small", {}, `× ${number(v, 3)}`), number(q[j] * v, 3)));
      }
      if (others) line.append(make("td", {}, make("small", {}, "…"), number(rest, 3)));
      const found = { product, scaled: product * item.scale, bias: bias && bias[i], score: score[i] };
      for (const column of columns) line.append(make("td", {}, make("strong", {}, number(found[column], 3))));
      line.append(make("td", {}, make("strong", {}, number(weight[i]))));
      body.append(line);
    });
    return scrolled(make("table", { class: "numbers products" }, body), item);
  },
  heat(item) {
    const { node, values, low, high } = heat(item, large);
    node.style.width = `${large / 16}rem`;
    const line = make("p", { class: "pointed" });
    pointed(node, item, values, line);
    return make("div", { class: "side" }, node,
      make("div", {}, ...(item.low === 0 && item.high === 1 ? [] : [legend(low, high)]), facts(item.beside), line));
  },
  maps(item) {
    const box = make("div", { class: line ? "maps-grid lines" : "maps-grid" }), words = make("p", { class: "pointed" });
    const shared = item.maps.every((map) => map.low === null && map.high !== null);
    const low = shared && Math.min(...item.maps.map((map) => entry(map.values).reduce((a, v) => Math.min(a, v))));
    for (const one of item.maps) {
      const map = shared ? { ...one, low } : one;
      const { node, values, high } = heat(map, small);
      pointed(node, map, values, words, `${said(map.caption)}, `);
      const name = shared ? said(map.caption) : `${said(map.caption)} (≤ ${number(high, 3)})`;
      box.append(make("div", {}, node, make("p", {}, name)));
    }
    const parts = shared ? [legend(low, item.maps[0].high)] : [];
    return make("div", {}, ...parts, box, words);
  },
  plot(item) {
    const lines = item.lines.map(([, values]) => entry(values)), count = lines[0].length;
    const top = Math.max(...lines.flatMap((line) => [...line])) * 1.06;
    const width = narrow.matches ? 350 : 560, height = 240, x = (i) => 52 + ((width - 66) * i) / Math.max(count - 1, 1);
    const y = (v) => height - 42 - ((height - 56) * v) / top;
    const graph = drawing("svg", { viewBox: `0 0 ${width} ${height}`, class: "graph", role: "img", "aria-label": said(item.caption) });
    for (const share of [0, 0.5, 1]) {
      const v = (share * top) / 1.06;
      graph.append(drawing("line", { x1: 52, x2: width - 14, y1: y(v), y2: y(v), class: "axis" }),
        drawing("text", { x: 46, y: y(v) + 4, "text-anchor": "end" }, number(v, 1)));
    }
    graph.append(drawing("line", { x1: x(item.mark), x2: x(item.mark), y1: 12, y2: height - 42, class: "mark" }));
    const every = Math.ceil(count / (narrow.matches ? 8 : 13));
    for (let i = 0; i < count; i += every)
      graph.append(drawing("text", { x: x(i), y: height - 24, "text-anchor": "middle" }, String(i)));
    graph.append(drawing("text", { x: width / 2, y: height - 6, "text-anchor": "middle" }, said(item.axis)));
    const names = make("p", { class: "keys" });
    lines.forEach((line, i) => {
      const ink = i ? "second" : "first";
      graph.append(drawing("polyline", { class: ink, points: [...line].map((v, j) => `${x(j)},${y(v)}`).join(" ") }));
      const swatch = make("i");
      swatch.style.background = `var(--${ink})`;
      names.append(make("span", {}, swatch, `${said(item.lines[i][0])} ${number(line[0], 2)} → ${number(line[count - 1], 2)}`));
    });
    return make("div", {}, names, graph);
  },
  curve(item) {
    const xs = decode(item.x).values, ys = decode(item.y).values, at = entry(item.at), to = entry(item.to);
    const width = narrow.matches ? 350 : 560, height = 230, low = xs[0], high = xs[xs.length - 1];
    const bottom = Math.min(...ys), top = Math.max(...ys);
    const x = (v) => 46 + ((width - 60) * (v - low)) / (high - low);
    const y = (v) => height - 28 - ((height - 42) * (v - bottom)) / (top - bottom || 1);
    const graph = drawing("svg", { viewBox: `0 0 ${width} ${height}`, class: "graph", role: "img", "aria-label": said(item.caption) },
      drawing("line", { x1: 46, x2: width - 14, y1: y(0), y2: y(0), class: "axis" }),
      drawing("line", { x1: x(0), x2: x(0), y1: 10, y2: height - 28, class: "axis" }),
      drawing("text", { x: 40, y: y(0) + 4, "text-anchor": "end" }, "0"),
      drawing("text", { x: 40, y: y(top) + 9, "text-anchor": "end" }, number(top, 1)));
    for (const v of [low, 0, high])
      graph.append(drawing("text", { x: x(v), y: height - 8, "text-anchor": v === high ? "end" : "middle" }, number(v, 1)));
    graph.append(drawing("polyline", { class: "first", points: [...xs].map((v, i) => `${x(v)},${y(ys[i])}`).join(" ") }));
    at.forEach((v, i) => graph.append(drawing("circle", { cx: x(v), cy: y(to[i]), r: 4 },
      drawing("title", {}, `${number(v)} → ${number(to[i])}`))));
    return graph;
  },
  cut(item) {
    const node = choosable(canvas(large, said(item.caption))), pen = node.getContext("2d");
    node.style.width = `${large / 16}rem`;
    const [, scale] = paint(node, false);
    const [row, column] = cellOn(item.grid, item.stride), side = item.stride * scale;
    pen.strokeStyle = getComputedStyle(root).getPropertyValue("--card");
    pen.lineWidth = Math.max(1, Math.min(2.5, side / 6)) * (window.devicePixelRatio || 1);
    pen.beginPath();
    for (let i = 0; i <= item.grid[0]; i++) { pen.moveTo(0, i * side); pen.lineTo(node.width, i * side); }
    for (let i = 0; i <= item.grid[1]; i++) { pen.moveTo(i * side, 0); pen.lineTo(i * side, node.height); }
    if (side > 4) pen.stroke();
    const left = column * item.stride - item.margin, top = row * item.stride - item.margin;
    outline(pen, left * scale, top * scale, item.side * scale, item.side * scale);
    const grown = make("canvas", { role: "img", "aria-label": word("pick") });
    grown.width = grown.height = 320;
    grown.style.width = "10rem";
    grown.classList.add("drawn");
    const big = grown.getContext("2d"), scaled = 320 / item.side;
    const [kx, ky] = [image.naturalWidth / imageWidth, image.naturalHeight / imageHeight];
    big.imageSmoothingEnabled = false;
    big.drawImage(image, left * kx, top * ky, item.side * kx, item.side * ky, 0, 0, item.side * scaled, item.side * scaled);
    return make("div", { class: "side" }, node, grown);
  },
  tiles(item) {
    const box = make("div", { class: "tiles" });
    item.tiles.forEach(([name, values], i) => {
      const [channels, rows, columns] = values.shape.slice(1), part = entry(values);
      const most = Math.max(...part.map(Math.abs)) || 1, plane = rows * columns;
      const node = make("canvas", { role: "img", "aria-label": said(name) });
      [node.width, node.height] = [columns, rows];
      node.style.imageRendering = "pixelated";
      node.style.cursor = "default";
      const pen = node.getContext("2d"), pixels = pen.createImageData(columns, rows);
      for (let j = 0; j < plane; j++) {
        const colour = channels === 1 ? signed(part[j] / most)
          : [0, 1, 2].map((c) => Math.round(127.5 * (1 + part[c * plane + j] / most)));
        pixels.data.set([...colour, 255], 4 * j);
      }
      pen.putImageData(pixels, 0, 0);
      if (i) box.append(make("span", {}, i === 1 ? "×" : "="));
      box.append(make("div", {}, node, make("p", {}, said(name))));
    });
    return box;
  },
  bars(item) {
    const logits = decode(item.logits).values, shares = decode(item.shares).values;
    const head = make("thead", {}, make("tr", {}, ...["class", "logit", "share"].map((key, i) =>
      make("th", { scope: "col", class: i === 1 ? "number" : "" }, word(key)))));
    const body = make("tbody");
    item.names.forEach((name, i) => {
      const bar = make("span", { class: "bar" }, `${(100 * shares[i]).toFixed(2)} %`);
      bar.style.setProperty("--v", shares[i]);
      body.append(make("tr", {}, make("th", { scope: "row" }, name),
        make("td", { class: "number" }, number(logits[i])), make("td", {}, bar)));
    });
    return scrolled(make("table", {}, head, body), item);
  },
  facts: (item) => facts(item.rows),
};

/* The page */
const boxes = [...document.querySelectorAll(".items")];
function draw(item) {
  return make("figure", {}, make("figcaption", {}, said(item.caption)), kinds[item.kind](item));
}
const picker = document.getElementById("picker");
function drawPicker() {
  const ratio = window.devicePixelRatio || 1, width = 240;
  picker.width = width * ratio;
  picker.height = Math.max(1, Math.round((width * ratio * view.height) / view.width));
  const [pen, scale] = paint(picker, false), side = page.stride * scale;
  pen.strokeStyle = "rgb(255 255 255 / .35)";
  pen.lineWidth = ratio * 0.75;
  pen.beginPath();
  for (let i = 1; i < gridRows; i++) { pen.moveTo(0, i * side); pen.lineTo(picker.width, i * side); }
  for (let i = 1; i < gridColumns; i++) { pen.moveTo(i * side, 0); pen.lineTo(i * side, picker.height); }
  if (side > 5 * ratio) pen.stroke();
  if (page.queries.length < gridRows * gridColumns) {
    pen.fillStyle = "rgb(255 255 255 / .7)";
    for (const cell of page.queries) {
      const { row, column } = rowsColumns(cell), dot = 2.2 * ratio;
      pen.fillRect((column + 0.5) * side - dot / 2, (row + 0.5) * side - dot / 2, dot, dot);
    }
  }
  outlineCell(pen, scale, page.grid, page.stride, 2.5);
  document.getElementById("chosen").textContent = word("patch", told(rowsColumns(page.queries[state.query])));
}
function render() {
  drawPicker();
  boxes.forEach((box) => box.replaceChildren(...page.steps[box.dataset.step].map(draw)));
}
function select(query) {
  state.query = query;
  render();
}
function move(down, right) {
  const rows = [...new Set(page.queries.map((cell) => rowsColumns(cell).row))];
  const columns = [...new Set(page.queries.map((cell) => rowsColumns(cell).column))];
  const at = rowsColumns(page.queries[state.query]);
  const step = (list, value, by) => list[Math.min(Math.max(list.indexOf(value) + by, 0), list.length - 1)];
  select(nearest(step(rows, at.row, down), step(columns, at.column, right)));
}
choosable(picker);
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
picker.addEventListener("keydown", (event) => {
  if (!(event.key in ARROWS)) return;
  event.preventDefault();
  move(...ARROWS[event.key]);
});
for (const button of document.querySelectorAll("[data-move]"))
  button.addEventListener("click", () => move(...button.dataset.move.split(",").map(Number)));
for (const button of document.querySelectorAll("[data-language]"))
  button.addEventListener("click", () => {
    state.language = root.dataset.lang = button.dataset.language;
    root.lang = button.lang;
    document.title = `${page.name}: ${word("title")}`;
    for (const other of document.querySelectorAll("[data-language]"))
      other.setAttribute("aria-pressed", String(other === button));
    render();
  });
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const sight = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen)
    isIntersecting ? links.get(target.id).setAttribute("aria-current", "true") : links.get(target.id).removeAttribute("aria-current");
}, { rootMargin: "-35% 0px -60% 0px" });
for (const section of document.querySelectorAll("main section")) sight.observe(section);
narrow.addEventListener("change", render);
image.addEventListener("load", render);
image.src = page.image.uri;
