// Where rows and columns lie: windows of blocks of places, as `vitrail.explain.packed` lays them.
const lattices = new WeakMap();

// For each place of a layer its window and its block in that window.
function latticeOf(att) {
  if (lattices.has(att)) return lattices.get(att);
  const [rows, columns] = att.grid, [tall, wide] = att.window, b = att.block;
  const across = Math.ceil(wide / b), per = Math.ceil(tall / b) * across;
  const windowsAcross = Math.ceil(columns / wide);
  const down = Math.ceil(rows / tall) * tall, along = windowsAcross * wide;
  const window = new Int32Array(rows * columns), block = new Int32Array(rows * columns);
  for (let y = 0, p = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++, p++) {
      const v = (y - att.shift + down) % down, u = (x - att.shift + along) % along;
      window[p] = Math.floor(v / tall) * windowsAcross + Math.floor(u / wide);
      block[p] = Math.floor((v % tall) / b) * across + Math.floor((u % wide) / b);
    }
  }
  const found = { rows, columns, per, window, block };
  lattices.set(att, found);
  return found;
}

// The place that holds a point of the image (x and y from 0 to 1).
function placeAt(att, size, point) {
  const [rows, columns] = att.grid;
  const y = Math.min(rows - 1, Math.floor(point.y * size[0] / att.stride));
  const x = Math.min(columns - 1, Math.floor(point.x * size[1] / att.stride));
  return Math.max(0, y) * columns + Math.max(0, x);
}

// The row of a query, or -1 where this layer has none such.
function rowOf(att, size, query) {
  if (att.rows === "pool") return query.kind === "pool" ? 0 : -1;
  if (att.rows === "symbols") return query.kind === "symbol" && query.i < att.shape[1] ? query.i : -1;
  if (query.kind === "token") return att.tokens.indexOf(query.name);
  if (query.kind !== "place") return -1;
  const lattice = latticeOf(att), p = placeAt(att, size, query);
  return att.tokens.length + lattice.window[p] * lattice.per + lattice.block[p];
}

// The window that a row looks into: 0 where there is only one.
function windowOf(att, row) {
  return att.rows === "places" && row >= att.tokens.length
    ? Math.floor((row - att.tokens.length) / latticeOf(att).per) : 0;
}

// The column of a place as seen from a row; -1 where the place is outside the row's window.
function keyOf(att, row, place) {
  const lattice = latticeOf(att);
  return lattice.window[place] === windowOf(att, row) ? att.others.length + lattice.block[place] : -1;
}

// The pixels of the block that holds a place: top, left, bottom, right; the last ones are outside.
function pixelsOf(att, size, place) {
  const lattice = latticeOf(att), n = lattice.columns;
  let top = Math.floor(place / n), left = place % n, bottom = top + 1, right = left + 1;
  if (att.block > 1) {
    const same = (p) => lattice.window[p] === lattice.window[place] && lattice.block[p] === lattice.block[place];
    while (top > 0 && same((top - 1) * n + left)) top--;
    while (left > 0 && same(top * n + left - 1)) left--;
    while (bottom < lattice.rows && same(bottom * n + left)) bottom++;
    while (right < n && same(top * n + right)) right++;
  }
  const s = att.stride;
  return [top * s, left * s, Math.min(bottom * s, size[0]), Math.min(right * s, size[1])];
}

// The pixels of a cell of a map.
function cellPixels(map, size, y, x) {
  const [tall, wide] = map.cell;
  return [y * tall, x * wide, Math.min((y + 1) * tall, size[0]), Math.min((x + 1) * wide, size[1])];
}

const span = (from, to) => (to - from > 1 ? `${from}–${to - 1}` : `${from}`);

function pixelWords([top, left, bottom, right]) {
  return `rows ${span(top, bottom)}, columns ${span(left, right)}`;
}
