"use strict";
// A draw as docs/definition.md defines it, for comparison with samplers/reference: the same names (hence in Python's
// style), the same numbered steps, the same integers.
//
// float32: a double operation on float32 values, rounded once by Math.fround, gives the float32 result, since
// 53 >= 2·24 + 2. Every operation therefore has its own f( ); fma rounds once for two operations, as in the reference.
// Integers: a weight is below 2^41 and exact in a double; a sum of up to 2^20 weights is not. Totals, products and
// bounds are BigInt.

const f = Math.fround;

// ---- fixed_point ----

const ONE = 2 ** 40; // the weight of the most probable token
const LOWEST = -60; // e^-60 is far below one unit

const hex = (significand, exponent) => (significand / 2 ** 24) * 2 ** exponent; // 0x1715476, 0 is 0x1.715476p+0
const LOG2_E = hex(0x1715476, 0);
const ROUND = 1.5 * 2 ** 23; // adding and subtracting it rounds to an integer
const LN2_HIGH = hex(0x162e400, -1); // ln 2 in two parts (Cody & Waite 1980)
const LN2_LOW = hex(0x17f7d1c, -20);
const C5 = hex(0x10fa834, -7);
const C4 = hex(0x1573a54, -5);
const C3 = hex(0x1555a6a, -3);
const C2 = hex(0x1fffdc6, -2);
const C1 = hex(0x1fffff6, -1);
const C0 = 1;
const POWERS = Float64Array.from({ length: 88 }, (_, n) => 2 ** (40 - n)); // d >= -60, so that j >= -87

/** d = (x - m) / T, from 0 down to -60. */
function distances(x, m, temperature) {
  const inverse = f(1 / temperature);
  return x.map((logit) => Math.max(f(f(logit - m) * inverse), LOWEST));
}

/** a·b + c: the product is exact in a double; every weight equals that of an operation that rounds once. */
const fma = (a, b, c) => f(a * b + c);

/** W(d) = floor(2^40·e^d) to about 2e-7 relative, for one float32 d in [-60, 0]. */
function weight_of(d) {
  // 1. d = j·ln 2 + s, with |s| <= ln 2 / 2
  const j = f(fma(d, LOG2_E, ROUND) - ROUND);
  const s = fma(-j, LN2_LOW, fma(-j, LN2_HIGH, d));
  // 2. e^s, a polynomial by Horner's rule
  let e = C5;
  e = fma(s, e, C4);
  e = fma(s, e, C3);
  e = fma(s, e, C2);
  e = fma(s, e, C1);
  e = fma(s, e, C0);
  // 3. 2^40·2^j·e^s, cut to an integer: a power of two changes no digit
  return Math.floor(e * POWERS[-j]);
}

const weights = (d) => Float64Array.from(d, weight_of);

const BLOCK = 2048; // the sum of 2048 weights is below 2^53: exact in doubles

/** The sum of one block of w, from `start`. */
function block_sum(w, start) {
  let block = 0;
  for (let i = start; i < Math.min(start + BLOCK, w.length); i++) block += w[i];
  return block;
}

/** Σ w, exact: BigInt. */
function sum(w) {
  let total = 0n;
  for (let start = 0; start < w.length; start += BLOCK) total += BigInt(block_sum(w, start));
  return total;
}

/** The first place whose running sum of w reaches the target, a BigInt in 1 .. Σ w. */
function first_reaching(w, target) {
  let start = 0;
  let left = target;
  for (let block = BigInt(block_sum(w, 0)); block < left; block = BigInt(block_sum(w, start))) {
    left -= block;
    start += BLOCK;
  }
  let rest = Number(left); // within one block, so exact
  let place = start;
  while ((rest -= w[place]) > 0) place++;
  return place;
}

/** Q(q) = ceil(q·2^64). Scaling by 2^64, Math.ceil and BigInt of an integral double are exact. */
const fraction = (q) => BigInt(Math.ceil(q * 2 ** 64));

/** q·mass, forgiving one part in 2^20. mass and the result are BigInt. */
function bound(mass, q) {
  const b = -((-mass * fraction(q)) >> 64n); // rounded up
  return b - (b >> 20n);
}

/** A BigInt as a number to compare weights with; no weight is above 2^53. */
const limit = (b) => (b > 2n ** 53n ? Infinity : Number(b));

/** D = floor(-d·2^24): nats below the most probable token, as integers of 2^-24. */
const surprisal = (d) => Float64Array.from(d, (distance) => Math.floor(-distance * 2 ** 24));

/** (w·D) >> 24. The product can exceed 2^53; both factors are split in two parts, whose products do not. */
function energy_of(w, D) {
  const D_high = Math.floor(D / 2 ** 24);
  const D_low = D - D_high * 2 ** 24;
  const w_high = Math.floor(w / 2 ** 24);
  const w_low = w - w_high * 2 ** 24;
  return w * D_high + w_high * D_low + Math.floor((w_low * D_low) / 2 ** 24);
}

/** D̄, the mean of D under w, in nats of 2^-24. */
function mean_surprisal(d, w) {
  const energy = sum(surprisal(d).map((D, i) => energy_of(w[i], D)));
  return Number((energy << 24n) / sum(w));
}

// ---- philox ----

const WORD = 0xffffffffn;
const word = (value) => value & WORD;

/** Philox4x32-10: four 32-bit words, as BigInt, for a counter of four and a key of two. */
function philox([c0, c1, c2, c3], [k0, k1]) {
  for (let round = 0; round < 10; round++) {
    const product_0 = 0xd2511f53n * c0;
    const product_1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(product_1 >> 32n) ^ c1 ^ k0, word(product_1), (product_0 >> 32n) ^ c3 ^ k1, word(product_0)];
    [k0, k1] = [word(k0 + 0x9e3779b9n), word(k1 + 0xbb67ae85n)];
  }
  return [c0, c1, c2, c3];
}

/** The 64 random bits of a draw, from three BigInt taken mod 2^64. */
function random_bits(seed, position, stream) {
  const [s, p, t] = [seed, position, stream].map((key) => BigInt.asUintN(64, key));
  const [c0, c1] = philox([word(p), p >> 32n, word(t), t >> 32n], [word(s), s >> 32n]);
  return c0 | (c1 << 32n);
}

// ---- order ----

const BITS = new DataView(new ArrayBuffer(4));

/** An integer in 0 .. 2^32 - 1 that falls as x rises; + 0 turns -0 into 0. */
function descending(x) {
  BITS.setFloat32(0, x + 0);
  const bits = BITS.getUint32(0);
  return bits >>> 31 ? bits : 0x7fffffff - bits;
}

/** Places by ascending key, ties by lowest place. A key below 2^33 and a place below 2^20 share one exact double. */
function argsort(keys) {
  const packed = Float64Array.from(keys, (key, i) => key * 2 ** 20 + i).sort();
  return Int32Array.from(packed, (pair) => pair % 2 ** 20);
}

/** Places in order: x descending, id ascending. */
const in_order = (x) => argsort(Float64Array.from(x, descending));

function argmax(x) {
  let best = 0;
  for (let i = 1; i < x.length; i++) if (x[i] > x[best]) best = i;
  return best;
}

/** A mask, Uint8Array [K], of the given places. */
function mask_of(size, places) {
  const kept = new Uint8Array(size);
  for (const place of places) kept[place] = 1;
  return kept;
}

// ---- top_k ----

/** The n-th greatest value, or the least if there are fewer. */
function nth_greatest(x, n) {
  return x.slice().sort()[x.length - Math.min(n, x.length)];
}

/** Kept: x >= the max(k, n)-th greatest of x. */
function top_k(x, k, n) {
  const least = nth_greatest(x, Math.max(k, n));
  return Uint8Array.from(x, (logit) => logit >= least);
}

// ---- top_p ----

/** Kept: the shortest prefix in order whose mass reaches p, at least n tokens. */
function top_p(x, w, p, n) {
  const order = in_order(x);
  // 1. and 2. the first prefix that reaches the target
  const target = bound(sum(w), p);
  const size = first_reaching(Float64Array.from(order, (i) => w[i]), target > 1n ? target : 1n) + 1;
  // 3. as a set
  return mask_of(x.length, order.subarray(0, Math.max(size, n)));
}

/** The n greatest of x, ties by lowest id. */
function first_in_order(x, n) {
  return mask_of(x.length, n === 1 ? [argmax(x)] : in_order(x).subarray(0, n));
}

// ---- cutoffs ----

/** Kept: p >= fraction · (the greatest p), and the first n in order. */
function min_p(x, w, part, n) {
  const first = first_in_order(x, n);
  const least = limit(bound(BigInt(w[argmax(w)]), part));
  return first.map((kept, i) => kept || w[i] >= least);
}

/** Kept: w >= least, and every x >= the n-th greatest. */
function at_least(x, w, least, n) {
  const nth = nth_greatest(x, n);
  return Uint8Array.from(x, (logit, i) => w[i] >= least || logit >= nth);
}

/** Kept: p >= cutoff, and every x >= the n-th greatest. */
function epsilon(x, w, cutoff, n) {
  return at_least(x, w, limit(bound(sum(w), cutoff)), n);
}

/** Kept: p >= min(cutoff, √cutoff·e^-H), and every x >= the n-th greatest. */
function eta(x, d, w, cutoff, n) {
  const flat = BigInt(weight_of(f(-mean_surprisal(d, w) * 2 ** -24)));
  const least = Math.min(limit(bound(sum(w), cutoff)), limit(bound(flat, Math.sqrt(cutoff))));
  return at_least(x, w, least, n);
}

// ---- typical ----

/** Kept: the tokens whose surprisal is nearest the entropy, up to mass p and all ties; at least n. */
function typical(d, w, p, n) {
  // 1. distance from typical
  const mean = mean_surprisal(d, w);
  const a = surprisal(d).map((D) => Math.abs(D - mean));
  const order = argsort(a);
  // 2. the least distance within which the mass reaches the target
  const target = bound(sum(w), p);
  const furthest = a[order[first_reaching(Float64Array.from(order, (i) => w[i]), target > 1n ? target : 1n)]];
  // 3. as a set
  const kept = Uint8Array.from(a, (distance) => distance <= furthest);
  for (const place of order.subarray(0, n)) kept[place] = 1;
  return kept;
}

// ---- draw ----

/** The first place whose running sum of w exceeds u = bits·total / 2^64. */
function draw(w, bits) {
  return first_reaching(w, ((bits * sum(w)) >> 64n) + 1n);
}

// ---- sampler: a Kept is { ids, x, d, w }, the tokens still kept, in id order ----

function max_of(x) {
  let m = -Infinity;
  for (const logit of x) {
    if (Number.isNaN(logit)) return NaN;
    if (logit > m) m = logit;
  }
  return m;
}

/** Step 1: no NaN, no +inf, something above -inf. */
const is_valid = (x) => Number.isFinite(max_of(x));

/** Step 4: the filters that p switches on, in order: [name, function from a Kept to a mask]. */
function stages(p) {
  const n = p.min_tokens_to_keep;
  const all = [
    ["top_k", p.top_k > 0, (c) => top_k(c.x, p.top_k, n)],
    ["top_p", p.top_p < 1, (c) => top_p(c.x, c.w, p.top_p, n)],
    ["min_p", p.min_p > 0, (c) => min_p(c.x, c.w, p.min_p, n)],
    ["typical_p", p.typical_p < 1, (c) => typical(c.d, c.w, p.typical_p, n)],
    ["epsilon_cutoff", p.epsilon_cutoff > 0, (c) => epsilon(c.x, c.w, p.epsilon_cutoff, n)],
    ["eta_cutoff", p.eta_cutoff > 0, (c) => eta(c.x, c.d, c.w, p.eta_cutoff, n)],
  ];
  return all.filter(([, on]) => on).map(([name, , mask]) => [name, mask]);
}

const with_total = (kept) => ({ ...kept, total: sum(kept.w) });

/** Steps 2 and 3: every token above -inf with its mass; at T = 0 the first maximum alone. x Float32Array [V]. */
function weigh(x, temperature) {
  const above = Int32Array.from(x.keys()).filter((i) => x[i] > -Infinity);
  const ids = temperature === 0 ? Int32Array.of(argmax(x)) : above;
  const kept_x = Float32Array.from(ids, (i) => x[i]);
  const d = distances(kept_x, max_of(x), temperature || 1);
  return with_total({ ids, x: kept_x, d, w: weights(d) });
}

function where(kept, mask) {
  const cut = (column) => column.filter((_, i) => mask[i]);
  return with_total({ ids: cut(kept.ids), x: cut(kept.x), d: cut(kept.d), w: cut(kept.w) });
}

// ---- tracing ----

const AT_T_1 = new WeakMap(); // the distribution of logits at T = 1, which no slider changes

function at_t_1(x) {
  if (!AT_T_1.has(x)) AT_T_1.set(x, weigh(x, 1));
  return AT_T_1.get(x);
}

/** The logits that a mask allows, -inf for all others. allowed: Uint8Array [V]. */
const masked = (x, allowed) => x.map((logit, i) => (allowed[i] ? logit : -Infinity));

/** The stages before the temperature, each with its logits; two that are the same object have the same values. */
function step_0({ logits, masked, changed }) {
  const stage = (name, x) => ({ name, value: null, kept: at_t_1(x) });
  if (!is_valid(logits)) return [stage("logits", changed), stage("penalties", changed)];
  return [
    stage("logits", logits),
    ...(masked === logits ? [] : [stage("allowed", masked)]),
    ...(changed === masked ? [] : [stage("penalties", changed)]),
  ];
}

/**
 * The tokens kept after every stage: [{ name, value, kept }]. row: logits are the model's, masked those that the mask
 * allows, changed after step 0.
 */
function path(row, p) {
  const { changed } = row;
  const steps = step_0(row);
  steps.push({ name: "temperature", value: p.temperature, kept: weigh(changed, p.temperature) });
  for (const [name, mask] of p.temperature > 0 ? stages(p) : []) {
    const { kept } = steps[steps.length - 1];
    steps.push({ name, value: p[name], kept: where(kept, mask(kept)) });
  }
  return steps;
}

/** Nats. */
function entropy_of(kept) {
  const energy = kept.w.reduce((so_far, w, i) => so_far + w * kept.d[i], 0);
  return Math.log(Number(kept.total) / ONE) - energy / Number(kept.total);
}

function place_of(token, kept) {
  let [low, high] = [0, kept.ids.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (kept.ids[middle] < token) low = middle + 1;
    else high = middle;
  }
  return kept.ids[low] === token ? low : -1;
}

/** The probability of a token in a distribution, 0 if it was cut. */
function probability(token, kept) {
  const place = place_of(token, kept);
  return place < 0 ? 0 : kept.w[place] / Number(kept.total);
}

/** The interval of integers in 0 .. total that draw the token at a place. */
function interval(kept, place) {
  const end = sum(kept.w.subarray(0, place + 1));
  return [end - BigInt(kept.w[place]), end];
}

/** One draw: its stages, and the token that the 64 random bits draw from the last stage. */
function follow(row, p, bits) {
  const steps = path(row, p);
  const { kept } = steps[steps.length - 1];
  const place = draw(kept.w, bits);
  return {
    stages: steps,
    kept,
    place,
    token: kept.ids[place],
    weight: kept.w[place],
    total: kept.total,
    u: (bits * kept.total) >> 64n,
  };
}

/** The row of a step from its parts. allowed: null for all; changed: null for what the mask leaves of the logits. */
function row_of(logits, allowed, changed) {
  const left = allowed === null ? logits : masked(logits, allowed);
  return { logits, allowed, masked: left, changed: changed ?? left };
}

const engine = { draw, entropy_of, follow, in_order, interval, place_of, probability, random_bits, row_of, weights };
if (typeof module === "object") module.exports = engine; // for the tests in Node
