// The Rank-N-Contrast loss of a few points in the plane, its lower bound and its gradient, as rnclib.RnCLoss has them:
// similarity -|v_i - v_k| / τ, label distance |y_i - y_k|, ties within the rounding of the labels.
"use strict";

const rncLoss = {
  // How much two label distances may differ and still tie: eight units in the last place of the largest label.
  // Whole numbers are exact.
  tolerance(labels) {
    if (labels.every(Number.isInteger)) return 0;
    const largest = Math.max(...labels.map(Math.abs));
    let power = 2 ** Math.floor(Math.log2(largest));
    if (power > largest) power /= 2;
    return 8 * Number.EPSILON * Math.max(power, 2 ** -1022);
  },

  // For each anchor, the others by label distance in levels: lists of those that tie, nearest first.
  levels(labels) {
    const tolerance = this.tolerance(labels);
    return labels.map((own, i) => {
      const distance = (k) => Math.abs(labels[k] - own);
      const others = labels.map((_, k) => k).filter((k) => k !== i);
      others.sort((a, b) => distance(a) - distance(b) || a - b);
      const found = [];
      for (const k of others) {
        const last = found.at(-1);
        if (last && distance(k) - distance(last[0]) <= tolerance) last.push(k);
        else found.push([k]);
      }
      return found;
    });
  },

  // L*: each sample of a level of n has at best the probability 1/n.
  bound(labels) {
    const count = labels.length * (labels.length - 1);
    let total = 0;
    for (const level of this.levels(labels).flat()) total += level.length * Math.log(level.length);
    return total / count;
  },

  // loss: the mean of the terms. terms[i][j] = log D_ij - s_ij, null where i = j. gradient[i] = [∂L/∂x_i, ∂L/∂y_i].
  // competitors[i][j]: the k whose label is at least as far from that of i as that of j is.
  evaluate(points, labels, temperature) {
    const n = points.length;
    const count = n * (n - 1);
    const gradient = points.map(() => [0, 0]);
    const terms = points.map(() => Array(n).fill(null));
    const competitors = points.map(() => Array(n).fill(null));
    const levels = this.levels(labels);
    let loss = 0;
    for (let i = 0; i < n; i++) {
      const apart = points.map((p) => Math.hypot(p[0] - points[i][0], p[1] - points[i][1]));
      const s = apart.map((d) => -d / temperature);
      const perS = Array(n).fill(-1); // ∂L/∂s_ik · count: each sample wants to be picked once, …
      for (let m = 0; m < levels[i].length; m++) {
        const among = levels[i].slice(m).flat();
        const top = Math.max(...among.map((k) => s[k]));
        const logD = top + Math.log(among.reduce((sum, k) => sum + Math.exp(s[k] - top), 0));
        for (const j of levels[i][m]) {
          terms[i][j] = logD - s[j];
          competitors[i][j] = among;
          loss += terms[i][j];
          for (const k of among) perS[k] += Math.exp(s[k] - logD); // … and is in the way of all nearer ones
        }
      }
      for (let k = 0; k < n; k++) {
        if (k === i || apart[k] === 0) continue; // equal points exert no force on each other
        for (const axis of [0, 1]) {
          const pull = ((points[i][axis] - points[k][axis]) / apart[k]) * (perS[k] / (temperature * count));
          gradient[i][axis] -= pull;
          gradient[k][axis] += pull;
        }
      }
    }
    return { loss: loss / count, terms, gradient, competitors };
  },
};
