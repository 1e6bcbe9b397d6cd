// The data of the page. Attention is decoded when it is looked at, a layer at a time.
const $ = (id) => document.getElementById(id);
const DATA = JSON.parse($("data").textContent);
const KEPT = 48e6; // bytes of decoded attention that are kept

function bytesOf(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

const floatsOf = (text) => new Float32Array(bytesOf(text).buffer);

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Weights of one layer: row(head, r) gives them as numbers; head -1 is the mean of all.
class Weights {
  constructor(att, raw) {
    const [heads, rows, keys] = att.shape, count = heads * rows * keys;
    this.heads = heads; this.rows = rows; this.keys = keys;
    this.size = raw.length;
    this.top = att.bits === 8 ? 255 : 65535;
    this.scales = new Float32Array(raw.buffer.slice(0, 4 * heads * rows));
    this.high = raw.subarray(4 * heads * rows, 4 * heads * rows + count);
    this.low = att.bits === 8 ? null : raw.subarray(4 * heads * rows + count);
  }

  row(head, r) {
    const found = new Float64Array(this.keys);
    const from = head < 0 ? 0 : head, to = head < 0 ? this.heads : head + 1;
    for (let h = from; h < to; h++) {
      const at = h * this.rows + r, start = at * this.keys;
      const scale = this.scales[at] / this.top / (to - from);
      for (let k = 0; k < this.keys; k++) {
        const whole = this.low ? 256 * this.high[start + k] + this.low[start + k] : this.high[start + k];
        found[k] += scale * whole;
      }
    }
    return found;
  }
}

const decoded = new Map(); // by the id of the element; the latest used is last
const underWay = new Map();

// The weights if they are there; else null, and `then` is called when they are.
function weightsOf(att, then) {
  const there = decoded.get(att.blob);
  if (there) {
    decoded.delete(att.blob);
    decoded.set(att.blob, there);
    return there;
  }
  if (!underWay.has(att.blob)) {
    const work = inflate(bytesOf($(att.blob).textContent)).then((raw) => {
      decoded.set(att.blob, new Weights(att, raw));
      let total = 0;
      for (const one of decoded.values()) total += one.size;
      for (const [key, one] of decoded) {
        if (total <= KEPT || decoded.size <= 2) break;
        total -= one.size;
        decoded.delete(key);
      }
    });
    underWay.set(att.blob, work);
    work.catch(() => trouble("This browser cannot unpack the attention of this page: it needs DecompressionStream (Chrome 80, Firefox 113, Safari 16.4 or later)."))
      .finally(() => underWay.delete(att.blob));
  }
  if (then) underWay.get(att.blob).then(then, () => {});
  return null;
}

function trouble(words) {
  $("trouble").textContent = words;
  $("trouble").hidden = false;
}
