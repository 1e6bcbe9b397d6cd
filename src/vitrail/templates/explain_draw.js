// Colours: one table of 256, from dark (nothing) to bright (the most).
const TABLE = (() => {
  const colours = bytesOf(DATA.colours), table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    table[i] = (255 << 24) | (colours[3 * i + 2] << 16) | (colours[3 * i + 1] << 8) | colours[3 * i];
  }
  return table;
})();

function pixelsFor(canvas, rows, columns) {
  if (canvas.width !== columns || canvas.height !== rows || !canvas.pixels) {
    canvas.width = columns;
    canvas.height = rows;
    canvas.pen = canvas.getContext("2d");
    canvas.pixels = canvas.pen.createImageData(columns, rows);
    canvas.words = new Uint32Array(canvas.pixels.data.buffer);
  }
  return canvas.words;
}

const step256 = (part) => Math.max(0, Math.min(255, Math.round(255 * part)));

// Over an image what is little lets more of the image through.
const VEIL = Uint32Array.from(TABLE, (word, i) => (word & 0xffffff) | (Math.round(255 * (0.5 + 0.5 * Math.sqrt(i / 255))) << 24));

// One row of attention on the grid of its layer; what is outside its window stays clear.
function drawRow(canvas, att, row, values, top, root) {
  const lattice = latticeOf(att), first = att.others.length, window = windowOf(att, row);
  const words = pixelsFor(canvas, lattice.rows, lattice.columns);
  for (let p = 0; p < words.length; p++) {
    const part = values[first + lattice.block[p]] / (top || 1);
    words[p] = lattice.window[p] === window ? VEIL[step256(root ? Math.sqrt(part) : part)] : 0;
  }
  canvas.pen.putImageData(canvas.pixels, 0, 0);
}

// The window of a row by itself, where it is a small part of the image.
function drawWindow(canvas, att, values, top, root) {
  const across = Math.ceil(att.window[1] / att.block), first = att.others.length;
  const words = pixelsFor(canvas, Math.ceil(att.window[0] / att.block), across);
  for (let k = 0; k < words.length; k++) {
    const part = values[first + k] / (top || 1);
    words[k] = TABLE[step256(root ? Math.sqrt(part) : part)];
  }
  canvas.pen.putImageData(canvas.pixels, 0, 0);
}

// A map of numbers between two ends.
function drawMap(canvas, grid, values, low, high) {
  const words = pixelsFor(canvas, grid[0], grid[1]);
  for (let p = 0; p < words.length; p++) words[p] = VEIL[step256((values[p] - low) / (high - low || 1))];
  canvas.pen.putImageData(canvas.pixels, 0, 0);
}

function drawColours(canvas, grid, bytes) {
  const words = pixelsFor(canvas, grid[0], grid[1]);
  for (let p = 0; p < words.length; p++) {
    words[p] = (255 << 24) | (bytes[3 * p + 2] << 16) | (bytes[3 * p + 1] << 8) | bytes[3 * p];
  }
  canvas.pen.putImageData(canvas.pixels, 0, 0);
}

function clear(canvas) {
  if (canvas.words) {
    canvas.words.fill(0);
    canvas.pen.putImageData(canvas.pixels, 0, 0);
  }
}

// The greatest weight on places.
function topOf(att, values) {
  let top = 0;
  for (let k = att.others.length; k < values.length; k++) top = Math.max(top, values[k]);
  return top;
}

const gradient = (() => {
  const bytes = bytesOf(DATA.colours), stops = [];
  for (let i = 0; i < 256; i += 15) stops.push(`rgb(${bytes[3 * i]} ${bytes[3 * i + 1]} ${bytes[3 * i + 2]})`);
  return `linear-gradient(90deg, ${stops.join(", ")})`;
})();

// Numbers as people read them: four digits, never an exponent for what is nearly nothing.
function say(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1000) return value.toFixed(0);
  if (size >= 0.001) return value.toPrecision(digits);
  return value.toExponential(2).replace("e-", "·10⁻").replace(/⁻(\d+)$/, (_, n) => "⁻" + [...n].map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]).join(""));
}

const percent = (value) => `${(100 * value).toFixed(1)} %`;
