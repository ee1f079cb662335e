// The loss to play with: drag embeddings, change labels and the temperature, and see every term, the loss above its
// bound and the forces. The numbers are those of rnc_loss.js.
"use strict";

interactive.kinds.playground = (data) => {
  const { make, set, number } = interactive;
  const n = data.points.length;
  const all = [...Array(n).keys()];
  const letters = all.map((i) => "ABCDEFGH"[i]);
  const HALF = 200; // the plane's half width in its own units of drawing
  const RADIUS = 15;
  const ARROW = 70; // length of the arrow of a force of 1 / (τ n)
  const WIDEST = 700; // of an arrangement, in τ
  const FARTHEST = 30; // that a descent carries a point from the middle, in τ
  const SMALLEST = 1.5; // half the width of the plane, in the first τ

  const state = {
    points: data.points.map((p) => [...p]),
    labels: [...data.labels],
    temperature: data.temperature,
    extent: 0, // half the width of what the plane shows
    anchor: 1,
    positive: 2,
  };
  let seed = 1; // of "Shuffle": the same places on every visit
  let falling = 0; // the animation that follows the forces

  // --- what there is on the page ------------------------------------------------------------------------

  const lines = make("g");
  const arrows = make("g", { class: "pg-forces" });
  const ruler = make("g", { class: "pg-ruler" });
  const marks = all.map((i) => {
    const circle = make("circle", { r: RADIUS });
    const label = make("text", { class: "pg-label", dy: "0.35em" });
    const letter = make("text", { class: "pg-letter", y: -RADIUS + 4 }, letters[i]);
    const group = make(
      "g",
      { class: "pg-point", tabindex: 0, role: "button", "aria-roledescription": "movable point" },
      make("circle", { class: "pg-touch", r: 24 }), make("circle", { class: "pg-ring", r: RADIUS + 4 }),
      circle, label, letter,
    );
    return { group, circle, label, letter };
  });
  const plane = make(
    "svg",
    {
      class: "pg-plane", viewBox: `0 0 ${2 * HALF} ${2 * HALF}`, role: "group",
      "aria-label": "Plane of embeddings. Each point can be dragged, or moved with the arrow keys.",
    },
    lines, arrows, ruler, ...marks.map((mark) => mark.group),
  );

  const value = make("span");
  const least = make("span");
  const gap = make("span");
  const filled = make("div", { class: "pg-filled" });
  const floor = make("div", { class: "pg-least" });
  const collapsed = make("div", { class: "pg-collapsed" });
  const stated = (term, text) => make("div", {}, make("dt", {}, ...term), make("dd", {}, text));
  const sign = (text) => make("em", {}, text);
  const total = make(
    "div",
    {},
    make("dl", { class: "pg-values" }, stated(["loss ", sign("L")], value),
      stated(["bound ", sign("L"), "*"], least), stated(["above it"], gap)),
    make("div", { class: "pg-meter", "aria-hidden": "true" }, filled, floor, collapsed),
    make("p", { class: "pg-key", "aria-hidden": "true" }, make("span", {}, "bound"), make("span", {}, "above it"),
      make("span", {}, "loss of all points in one place")),
  );

  const heads = all.map(() => make("th", { scope: "col" }));
  const rows = all.map((r) => {
    const head = make("th", { scope: "row" });
    const cells = all.map((c) =>
      r === c ? make("td", { class: "pg-none" }, "–") : make("td", {}, make("button", { type: "button", tabindex: -1 })),
    );
    return { head, cells, row: make("tr", {}, head, ...cells) };
  });
  const matrix = make(
    "table",
    { class: "pg-terms" },
    make("caption", {}, "Terms: −log of the probability that the anchor picks the sample of the column"),
    make("thead", {}, make("tr", {}, make("td", { class: "pg-corner" }, "anchor"), ...heads)),
    make("tbody", {}, ...rows.map(({ row }) => row)),
  );
  const sentence = make("p");
  const shares = make("div", { class: "pg-shares", "aria-hidden": "true" });

  const heat = make("input", { type: "range", min: -4, max: 3, step: 0.05, "aria-label": "Temperature τ" });
  const degrees = make("output");
  const fields = all.map((i) =>
    make("input", { type: "number", min: 0, max: 100, step: "any", inputmode: "decimal",
      "aria-label": `Label of ${letters[i]}` }),
  );
  const button = (text, action) => make("button", { type: "button", onclick: action }, text);
  const follow = button("Follow the forces", () => (falling ? stop() : fall()));
  const spoken = make("p", { class: "interactive-unseen", role: "status" });
  const say = interactive.speaker(spoken);

  // --- geometry -----------------------------------------------------------------------------------------

  const left = (x) => HALF + (x / state.extent) * (HALF - 26);
  const top = (y) => HALF - (y / state.extent) * (HALF - 26);
  const spread = () => Math.max(...state.points.flat().map(Math.abs));
  const inLabelOrder = () => [...all].sort((a, b) => state.labels[a] - state.labels[b] || a - b);
  const share = (i) => {
    const low = Math.min(...state.labels);
    const high = Math.max(...state.labels);
    return high > low ? (state.labels[i] - low) / (high - low) : 0.5;
  };
  const paint = (i) => interactive.colour(data.colours, share(i));
  const named = (i) => `${letters[i]} (${labelText(i)})`;
  const labelText = (i) => String(Math.round(state.labels[i] * 100) / 100);

  // Let the plane show all points; it grows with them and shrinks only if asked to.
  function fit(anew = false) {
    const needed = Math.max(SMALLEST * data.temperature, spread());
    if (anew || needed > state.extent) state.extent = needed;
  }

  // --- drawing ------------------------------------------------------------------------------------------

  function draw(speak = true) {
    const found = rncLoss.evaluate(state.points, state.labels, state.temperature);
    const bound = rncLoss.bound(state.labels);
    const one = rncLoss.evaluate(all.map(() => [0, 0]), state.labels, 1).loss;
    drawPlane(found);
    drawTotal(found.loss, bound, one);
    drawTerms(found);
    drawPair(found);
    degrees.textContent = `τ = ${number(state.temperature, 2)}`;
    heat.value = Math.log2(state.temperature);
    heat.setAttribute("aria-valuetext", number(state.temperature, 2));
    const text = `Loss ${number(found.loss, 3)}, bound ${number(bound, 3)}.`;
    if (speak) say(text);
  }

  function drawPlane({ gradient, competitors }) {
    const { anchor, positive } = state;
    const among = competitors[anchor][positive];
    const line = (k, kind) =>
      make("line", { class: kind, x1: left(state.points[anchor][0]), y1: top(state.points[anchor][1]),
        x2: left(state.points[k][0]), y2: top(state.points[k][1]) });
    lines.replaceChildren(
      ...among.filter((k) => k !== positive).map((k) => line(k, "pg-among")), line(positive, "pg-picked"),
    );
    arrows.replaceChildren();
    all.forEach((i) => {
      const [x, y] = [left(state.points[i][0]), top(state.points[i][1])];
      const { fill, ink } = paint(i);
      const { group, circle, label, letter } = marks[i];
      set(group, {
        transform: `translate(${x.toFixed(2)} ${y.toFixed(2)})`,
        "aria-label": `${letters[i]}, label ${labelText(i)}, at ${number(state.points[i][0], 1)}, ` +
          `${number(state.points[i][1], 1)}`,
        class: `pg-point${i === anchor ? " pg-anchor" : ""}${i === anchor || among.includes(i) ? "" : " pg-apart"}`,
      });
      set(circle, { fill });
      label.style.fill = ink;
      label.textContent = labelText(i);
      const force = gradient[i].map((g) => -g * state.temperature * n * ARROW);
      const size = Math.hypot(...force);
      const aside = force[0] > 0 && force[1] > 0 ? -1 : 1; // where its arrow is not
      set(letter, { x: aside * (RADIUS + 2), "text-anchor": aside < 0 ? "end" : "start" });
      if (size > 2) arrows.append(arrow(x, y, force[0] / size, -force[1] / size, Math.min(size, 110)));
    });
    const unit = left(state.temperature) - left(0);
    const shown = Math.min(unit, 2 * HALF - 24);
    ruler.replaceChildren(
      make("path", { d: `M12 ${2 * HALF - 16} v8 m0 -4 h${shown.toFixed(2)} m0 -4 v8` }),
      make("text", { x: 12, y: 2 * HALF - 22 }, unit > shown ? "less than τ" : "a distance of τ"),
    );
  }

  // From the rim of a point, in its direction.
  function arrow(x, y, dx, dy, size) {
    const [x1, y1] = [x + dx * RADIUS, y + dy * RADIUS];
    const [x2, y2] = [x1 + dx * size, y1 + dy * size];
    const head = Math.min(9, size);
    const side = (sign) => `${x2 - dx * head - sign * dy * head * 0.5},${y2 - dy * head + sign * dx * head * 0.5}`;
    return make("g", {}, make("line", { x1, y1, x2: x2 - dx * head, y2: y2 - dy * head }),
      make("polygon", { points: `${x2},${y2} ${side(1)} ${side(-1)}` }));
  }

  function drawTotal(loss, bound, one) {
    const scale = 1.04 * Math.max(one, loss);
    const percent = (part) => `${((100 * part) / scale).toFixed(2)}%`;
    value.textContent = number(loss, 4);
    least.textContent = number(bound, 4);
    gap.textContent = number(loss - bound, 4);
    filled.style.width = percent(loss);
    floor.style.width = percent(bound);
    collapsed.style.left = percent(one);
  }

  function drawTerms({ terms }) {
    const order = inLabelOrder();
    const chip = (head, i) => {
      const { fill, ink } = paint(i);
      const box = make("span", { class: "pg-chip" }, labelText(i));
      box.style.background = fill;
      box.style.color = ink;
      head.replaceChildren(letters[i], box);
    };
    order.forEach((i, r) => {
      chip(heads[r], i);
      chip(rows[r].head, i);
      order.forEach((j, c) => {
        if (r === c) return;
        const term = terms[i][j];
        const chosen = i === state.anchor && j === state.positive;
        const cell = rows[r].cells[c].firstChild;
        cell.textContent = number(term, 2);
        // a term of log (n - 1) is that of a choice at random
        cell.style.setProperty("--strength", Math.min(1, term / (1.5 * Math.log(n - 1))).toFixed(3));
        set(cell, {
          "aria-label": `anchor ${named(i)}, positive ${named(j)}: ${number(term, 2)}`,
          "aria-pressed": String(chosen), tabindex: chosen ? 0 : -1,
        });
      });
    });
  }

  function drawPair({ terms, competitors }) {
    const { anchor, positive } = state;
    const among = competitors[anchor][positive];
    const chances = among.map((k) => Math.exp(-terms[anchor][positive] + similarity(anchor, k) - similarity(anchor, positive)));
    const chance = Math.exp(-terms[anchor][positive]);
    const level = rncLoss.levels(state.labels)[anchor].find((one) => one.includes(positive));
    const text = [`Anchor ${named(anchor)} picks ${named(positive)}`];
    if (among.length === 1) text.push(": no other label is as far from its own, so the term is 0.");
    else {
      text.push(` among ${among.map((k) => letters[k]).join(", ")} with probability ${number(chance, 2)}; `);
      text.push(`the term is −log ${number(chance, 2)} = ${number(terms[anchor][positive], 2)}.`);
      if (level.length > 1) {
        const ties = level.filter((k) => k !== positive).map((k) => letters[k]).join(", ");
        text.push(` It ties with ${ties}: at the bound each has 1/${level.length}.`);
      }
    }
    sentence.textContent = text.join("");
    shares.replaceChildren(
      ...among
        .map((k, place) => [k, chances[place]])
        .sort(([a], [b]) => (b === positive) - (a === positive))
        .map(([k, part]) => {
          const { fill, ink } = paint(k);
          const piece = make("div", { class: k === positive ? "pg-own" : "pg-other" },
            part > 0.07 ? make("span", {}, letters[k]) : "");
          piece.style.flexGrow = Math.max(part, 1e-4);
          piece.style.setProperty("--fill", fill);
          piece.style.setProperty("--ink", ink);
          return piece;
        }),
    );
  }

  const similarity = (i, k) =>
    -Math.hypot(state.points[i][0] - state.points[k][0], state.points[i][1] - state.points[k][1]) / state.temperature;

  // --- what the reader does -----------------------------------------------------------------------------

  function choose(anchor, positive) {
    state.anchor = anchor;
    if (positive !== undefined) state.positive = positive;
    if (state.positive === anchor) {
      const distance = (k) => Math.abs(state.labels[k] - state.labels[anchor]);
      state.positive = all.filter((k) => k !== anchor).sort((a, b) => distance(a) - distance(b))[0];
    }
  }

  function move(i, x, y) {
    const within = (z) => Math.max(-state.extent, Math.min(state.extent, z));
    state.points[i] = [within(x), within(y)];
    draw();
  }

  all.forEach((i) => {
    const { group } = marks[i];
    let held = null;
    const place = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(plane.getScreenCTM().inverse());
    const inPlane = ({ x, y }) => [
      ((x - HALF) / (HALF - 26)) * state.extent, ((HALF - y) / (HALF - 26)) * state.extent,
    ];
    set(group, {
      onpointerdown: (event) => {
        if (event.button) return;
        stop();
        group.setPointerCapture(event.pointerId);
        const [x, y] = inPlane(place(event));
        held = [state.points[i][0] - x, state.points[i][1] - y];
        group.focus({ preventScroll: true });
        event.preventDefault();
      },
      onpointermove: (event) => {
        if (!held) return;
        const [x, y] = inPlane(place(event));
        move(i, x + held[0], y + held[1]);
      },
      onpointerup: () => (held = null),
      onpointercancel: () => (held = null),
      onfocus: () => {
        choose(i);
        draw(false);
      },
      onkeydown: (event) => {
        const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
        if (!by) return;
        event.preventDefault();
        stop();
        const step = state.extent * (event.shiftKey ? 0.005 : 0.04);
        move(i, state.points[i][0] + by[0] * step, state.points[i][1] + by[1] * step);
      },
    });
    set(fields[i], {
      oninput: () => {
        const wanted = fields[i].valueAsNumber;
        if (!(wanted >= 0 && wanted <= 100)) return;
        stop();
        state.labels[i] = wanted;
        draw();
      },
      onchange: writeFields,
    });
  });

  rows.forEach(({ cells }, r) =>
    cells.forEach((cell, c) => {
      if (r === c) return;
      const pick = () => {
        const order = inLabelOrder();
        choose(order[r], order[c]);
        draw(false);
      };
      set(cell.firstChild, {
        onclick: pick,
        onkeydown: (event) => {
          const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
          if (!by) return;
          event.preventDefault();
          let [row, column] = [r + by[0], c + by[1]];
          if (row === column) [row, column] = [row + by[0], column + by[1]]; // over the diagonal
          rows[row]?.cells[column]?.firstChild.focus();
        },
        onfocus: pick,
      });
    }),
  );

  set(heat, {
    oninput: () => {
      stop();
      state.temperature = 2 ** heat.valueAsNumber;
      draw();
    },
  });

  function writeFields() {
    all.forEach((i) => {
      fields[i].value = labelText(i);
      fields[i].style.borderColor = paint(i).fill;
    });
  }

  // --- arrangements and motion --------------------------------------------------------------------------

  // On a line in the order of the labels, as far apart as it takes for farther levels to count for little. Points of
  // equal label lie a little above each other, so that all are seen.
  function arranged() {
    const levels = rncLoss.levels(state.labels);
    const steps = levels.flatMap((its, i) =>
      its.slice(1).map((level, m) => Math.abs(state.labels[level[0]] - state.labels[i]) - Math.abs(state.labels[its[m][0]] - state.labels[i])),
    );
    const low = Math.min(...state.labels);
    const width = Math.max(...state.labels) - low;
    const finest = Math.min(...steps, width || 1);
    const scale = width ? Math.min(7 / finest, WIDEST / width) * state.temperature : 0;
    const half = Math.max((scale * width) / 2, SMALLEST * state.temperature);
    const equal = (i) => all.filter((k) => state.labels[k] === state.labels[i]);
    return all.map((i) => [
      scale * (state.labels[i] - low - width / 2),
      0.14 * half * (equal(i).indexOf(i) - (equal(i).length - 1) / 2),
    ]);
  }

  function shuffled() {
    const next = () => (seed = (1664525 * seed + 1013904223) % 2 ** 32) / 2 ** 32;
    return all.map(() => {
      const [angle, radius] = [2 * Math.PI * next(), 2 * data.temperature * Math.sqrt(next())];
      return [radius * Math.cos(angle), radius * Math.sin(angle)];
    });
  }

  // Move all points to new places, in half a second unless the reader wants no motion.
  function glide(to) {
    stop();
    const from = state.points.map((p) => [...p]);
    const before = state.extent;
    const after = Math.max(SMALLEST * data.temperature, ...to.flat().map(Math.abs));
    const begun = performance.now();
    const frame = (now) => {
      const t = interactive.still() ? 1 : Math.min(1, Math.max(0, now - begun) / 500);
      const eased = t * t * (3 - 2 * t);
      state.points = from.map((p, i) => p.map((z, axis) => z + eased * (to[i][axis] - z)));
      state.extent = before + eased * (after - before);
      if (t === 1) [state.points, state.extent] = [to.map((p) => [...p]), after];
      draw(t === 1);
      falling = t < 1 ? requestAnimationFrame(frame) : 0;
    };
    frame(begun);
  }

  // Gradient descent with a step that grows while it helps; it ends at the bound, at rest, or where the plane ends.
  function fall() {
    const bound = rncLoss.bound(state.labels);
    let rate = state.temperature ** 2;
    let left = 1000; // steps
    const step = () => {
      const { loss, gradient } = rncLoss.evaluate(state.points, state.labels, state.temperature);
      while (rate > 1e-9 * state.temperature ** 2) {
        const tried = state.points.map((p, i) => p.map((z, axis) => z - rate * gradient[i][axis]));
        if (rncLoss.evaluate(tried, state.labels, state.temperature).loss < loss) {
          state.points = centred(tried);
          rate *= 1.2;
          return loss - bound > 5e-3 && spread() < FARTHEST * state.temperature && --left > 0;
        }
        rate /= 2;
      }
      return false;
    };
    const frame = () => {
      let goes = step();
      while (goes && interactive.still()) goes = step();
      fit();
      draw(!goes);
      falling = goes ? requestAnimationFrame(frame) : 0;
      follow.textContent = goes ? "Stop" : "Follow the forces";
    };
    falling = 1;
    frame();
  }

  function centred(points) {
    const mean = [0, 1].map((axis) => points.reduce((sum, p) => sum + p[axis], 0) / n);
    return points.map((p) => [p[0] - mean[0], p[1] - mean[1]]);
  }

  function stop() {
    cancelAnimationFrame(falling);
    falling = 0;
    follow.textContent = "Follow the forces";
  }

  function restart() {
    Object.assign(state, { labels: [...data.labels], temperature: data.temperature });
    writeFields();
    glide(data.points);
  }

  // --- all of it ----------------------------------------------------------------------------------------

  fit(true);
  writeFields();
  draw(false);
  return make(
    "div",
    { class: "playground", role: "group", "aria-label": "Playground of the loss" },
    make("div", { class: "pg-buttons" }, follow, button("Arrange by label", () => glide(arranged())),
      button("Shuffle", () => glide(shuffled())), button("Start again", restart)),
    make("div", { class: "pg-left" }, plane,
      make("label", { class: "pg-heat" }, degrees, heat),
      make("div", { class: "pg-labels" },
        ...all.map((i) => make("label", {}, make("span", { "aria-hidden": "true" }, letters[i]), fields[i])))),
    make("div", { class: "pg-right" }, total, matrix),
    make("div", { class: "pg-pair" }, sentence, shares),
    spoken,
  );
};
