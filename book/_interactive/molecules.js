// A map of molecules: where two networks place them, coloured by what was measured. Pointing at one, tapping it or
// going to it with the keyboard draws it, with its measured and predicted values.
"use strict";

interactive.kinds.molecules = (data) => {
  const { make, set, number, colour } = interactive;
  const { networks, names, measured, unit } = data;
  const LOW = Math.min(...measured);
  const HIGH = Math.max(...measured);
  const share = (value) => (value - LOW) / (HIGH - LOW || 1);
  const SETS = { train: "training", test: "test" };
  const mapped = [...names.keys()].filter((i) => data.set[i] in SETS);
  const MARGIN = { left: 44, right: 12, top: 10, bottom: 42 };

  const state = { network: 0, set: "both", equal: false, chosen: -1 };
  let size = { width: 600, height: 420 };
  let window_ = range(0); // what the axes show: [x low, x high, y low, y high]
  let places = networks[0].x.map((x, i) => [x, networks[0].y[i]]);
  let running = 0;

  // --- what there is on the page ------------------------------------------------------------------------

  const circles = new Map(
    [...mapped].sort((a, b) => (data.set[a] === "test") - (data.set[b] === "test")).map((i) => [
      i, make("circle", { class: `mm-${data.set[i]}`, fill: colour(data.colours, share(measured[i])).fill }),
    ]),
  );
  const axes = make("g", { class: "mm-axes" });
  const ring = make("circle", { class: "mm-ring", r: 9 });
  const chart = make(
    "svg",
    {
      class: "mm-chart", tabindex: 0, role: "application",
      "aria-label": "Map of molecules. Arrow keys go to the next molecule in their direction.",
    },
    axes, make("g", {}, ...circles.values()), ring,
  );

  const radios = (legend, name, options, chosen, action) =>
    make("fieldset", { class: "mm-options" }, make("legend", {}, legend),
      ...options.map(([value, text]) =>
        make("label", {},
          make("input", { type: "radio", name: `mm-${name}`, value, checked: value === chosen,
            onchange: () => action(value) }),
          make("span", {}, text))));
  const counts = Object.keys(SETS).map((of) => mapped.filter((i) => data.set[i] === of).length);
  const which = radios("Molecules", "set",
    [["train", `training (${counts[0]})`], ["test", `test (${counts[1]})`], ["both", "both"]], state.set, showSet);
  const key = make("p", { class: "mm-key" }, make("span", { class: "mm-key-train" }, "training molecule"),
    make("span", { class: "mm-key-test" }, "test molecule"));
  const equal = make("input", { type: "checkbox", onchange: () => {
    state.equal = equal.checked;
    glide();
  } });

  const picture = make("svg", { class: "mm-molecule", role: "img" });
  const title = make("p", { class: "mm-name" });
  const facts = make("dl", { class: "mm-facts" });
  const scale = make("svg", { class: "mm-scale", viewBox: "0 0 280 66", "aria-hidden": "true" });
  const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Molecules from least to most soluble",
    oninput: () => choose(inOrder()[slider.valueAsNumber]) });
  const list = make("datalist", { id: `mm-names-${document.querySelectorAll("datalist").length}` },
    ...[...new Set(mapped.map((i) => names[i]))].sort().map((value) => make("option", { value })));
  const search = make("input", { type: "search", list: list.id, placeholder: "a name, such as benzene", onchange: find,
    oninput: (event) => event.inputType === "insertReplacementText" && find() });
  const told = make("p", { class: "mm-told", role: "status" });
  const spoken = make("p", { class: "interactive-unseen", role: "status" });
  const say = interactive.speaker(spoken);

  // --- the map ------------------------------------------------------------------------------------------

  const visible = (i) => state.set === "both" || data.set[i] === state.set;
  const shown = () => mapped.filter(visible);
  const inOrder = () => shown().sort((a, b) => measured[a] - measured[b] || a - b);

  // The axes hold all molecules of a network, whichever of them are shown.
  function range(network, equalScale = false) {
    const its = networks[network];
    const ends = [its.x, its.y].flatMap((values) => {
      const used = mapped.map((i) => values[i]);
      const [low, high] = [Math.min(...used), Math.max(...used)];
      const pad = 0.04 * (high - low || 1);
      return [low - pad, high + pad];
    });
    if (!equalScale) return ends;
    const per = [
      (ends[1] - ends[0]) / (size.width - MARGIN.left - MARGIN.right),
      (ends[3] - ends[2]) / (size.height - MARGIN.top - MARGIN.bottom),
    ];
    const wide = per[0] < per[1] ? 0 : 2;
    const middle = (ends[wide] + ends[wide + 1]) / 2;
    const half = ((ends[wide + 1] - ends[wide]) / 2) * (Math.max(...per) / Math.min(...per));
    ends.splice(wide, 2, middle - half, middle + half);
    return ends;
  }

  const left = (x) =>
    MARGIN.left + ((x - window_[0]) / (window_[1] - window_[0])) * (size.width - MARGIN.left - MARGIN.right);
  const top = (y) =>
    size.height - MARGIN.bottom -
    ((y - window_[2]) / (window_[3] - window_[2])) * (size.height - MARGIN.top - MARGIN.bottom);

  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) found.push([k * step, number(k * step, digits)]);
    return found;
  }

  function draw() {
    const [bottom, right] = [size.height - MARGIN.bottom, size.width - MARGIN.right];
    set(chart, { viewBox: `0 0 ${size.width} ${size.height}` });
    axes.replaceChildren(
      ...ticks(window_[0], window_[1], size.width / 90).flatMap(([x, text]) => [
        make("line", { x1: left(x), x2: left(x), y1: MARGIN.top, y2: bottom }),
        make("text", { x: left(x), y: bottom + 16, "text-anchor": "middle" }, text),
      ]),
      ...ticks(window_[2], window_[3], size.height / 70).flatMap(([y, text]) => [
        make("line", { x1: MARGIN.left, x2: right, y1: top(y), y2: top(y) }),
        make("text", { x: MARGIN.left - 6, y: top(y), dy: "0.35em", "text-anchor": "end" }, text),
      ]),
      make("text", { x: right, y: size.height - 6, "text-anchor": "end" }, "first component →"),
      make("text", { transform: `translate(11 ${MARGIN.top}) rotate(-90)`, "text-anchor": "end" }, "second component →"),
    );
    for (const [i, circle] of circles) {
      circle.style.display = visible(i) ? "" : "none";
      set(circle, {
        cx: left(places[i][0]).toFixed(1), cy: top(places[i][1]).toFixed(1),
        r: data.set[i] === "test" ? 4.5 : state.set === "both" ? 2.5 : 3.5,
      });
    }
    chart.classList.toggle("mm-both", state.set === "both");
    if (state.chosen >= 0) {
      set(ring, { cx: left(places[state.chosen][0]).toFixed(1), cy: top(places[state.chosen][1]).toFixed(1) });
    }
  }

  // Let the molecules wander to where the network in question places them.
  function glide() {
    cancelAnimationFrame(running);
    const [from, before] = [places, window_];
    const its = networks[state.network];
    const [to, after] = [its.x.map((x, i) => [x, its.y[i]]), range(state.network, state.equal)];
    const begun = performance.now();
    const frame = (now) => {
      const t = interactive.still() ? 1 : Math.min(1, Math.max(0, now - begun) / 700);
      const eased = t * t * (3 - 2 * t);
      const between = (a, b) => a + eased * (b - a);
      places = t === 1 ? to : from.map((p, i) => [between(p[0], to[i][0]), between(p[1], to[i][1])]);
      window_ = t === 1 ? after : before.map((end, k) => between(end, after[k]));
      draw();
      running = t < 1 ? requestAnimationFrame(frame) : 0;
    };
    frame(begun);
  }

  // --- the molecule -------------------------------------------------------------------------------------

  function choose(i, speak = true) {
    if (i === undefined || i < 0) return;
    state.chosen = i;
    const predictions = networks.map((its) => its.predicted[i]);
    title.textContent = names[i];
    drawMolecule(data.drawings[i], names[i]);
    const fact = (term, text) => [make("dt", {}, term), make("dd", {}, text)];
    const values = [["measured", measured[i]], ...networks.map((its, k) => [its.name, predictions[k]])];
    facts.replaceChildren(
      ...fact(`${SETS[data.set[i]]} molecule`, unit),
      ...values.flatMap(([term, value]) =>
        fact(term, value === undefined ? "not recorded" : number(value, 2))),
    );
    drawScale(measured[i], predictions);
    const order = inOrder();
    slider.max = order.length - 1;
    slider.value = order.indexOf(i);
    const text = `${names[i]}: ${values.map(([term, value]) =>
      `${term} ${value === undefined ? "not recorded" : number(value, 2)}`).join(", ")}.`;
    slider.setAttribute("aria-valuetext", text);
    if (speak) say(text);
    draw();
  }

  // Fortieths of an ångström to the size of the picture; no bond is drawn longer than 34 pixels.
  function drawMolecule([at, bonds, texts], name) {
    const [WIDTH, HEIGHT, EDGE] = [280, 165, 22];
    const xs = at.filter((_, k) => k % 2 === 0);
    const ys = at.filter((_, k) => k % 2 === 1);
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const zoom = Math.min(34 / 60, (WIDTH - 2 * EDGE) / (x1 - x0 || 1), (HEIGHT - 2 * EDGE) / (y1 - y0 || 1));
    const place = (atom) => [
      WIDTH / 2 + (xs[atom] - (x0 + x1) / 2) * zoom, HEIGHT / 2 + (ys[atom] - (y0 + y1) / 2) * zoom,
    ];
    const labelled = new Set(texts.filter((_, k) => k % 3 === 0));
    const parts = [];
    const line = (from, to) =>
      parts.push(make("line", { x1: from[0].toFixed(1), y1: from[1].toFixed(1), x2: to[0].toFixed(1), y2: to[1].toFixed(1) }));
    for (let k = 0; k < bonds.length; k += 3) {
      const [a, b, kind] = bonds.slice(k, k + 3);
      let [from, to] = [place(a), place(b)];
      const long = Math.hypot(to[0] - from[0], to[1] - from[1]) || 1;
      const [dx, dy] = [(to[0] - from[0]) / long, (to[1] - from[1]) / long];
      const room = 17 * zoom; // a text of an atom stands free
      if (labelled.has(a)) from = [from[0] + dx * room, from[1] + dy * room];
      if (labelled.has(b)) to = [to[0] - dx * room, to[1] - dy * room];
      const beside = (by, shorter) => line(
        [from[0] - dy * by + dx * (labelled.has(a) ? 0 : shorter), from[1] + dx * by + dy * (labelled.has(a) ? 0 : shorter)],
        [to[0] - dy * by - dx * (labelled.has(b) ? 0 : shorter), to[1] + dx * by - dy * (labelled.has(b) ? 0 : shorter)],
      );
      const apart = Math.max(2.2, 10 * zoom);
      if (kind === 2) [-apart / 2, apart / 2].forEach((by) => beside(by, 0));
      else line(from, to);
      if (kind === 3) [-apart, apart].forEach((by) => beside(by, 0));
      if (kind >= 4) beside(kind === 4 ? -apart : apart, 7 * zoom);
    }
    const font = Math.max(7, 25 * zoom);
    for (let k = 0; k < texts.length; k += 3) {
      const [atom, text, side] = texts.slice(k, k + 3);
      const [x, y] = place(atom);
      const symbol = text.match(/Cl|Br|S[ein]|[A-GI-Z]/)?.[0] ?? text;
      parts.push(make("text", {
        x: (x - side * 0.37 * font).toFixed(1), y: y.toFixed(1), dy: "0.36em", "font-size": font.toFixed(1),
        "text-anchor": { "-1": "end", 0: "middle", 1: "start" }[side], class: `mm-element-${symbol}`,
      }, text));
    }
    set(picture, { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-label": `Structure of ${name}` });
    picture.replaceChildren(...parts);
  }

  // The colours of the map with what they mean, and where this molecule's values lie.
  function drawScale(value, predictions) {
    const across = (v) => 8 + 264 * Math.min(1.01, Math.max(-0.01, share(v)));
    const steps = 44;
    const bar = [...Array(steps).keys()].map((k) =>
      make("rect", { x: 8 + (264 * k) / steps, y: 22, width: 264 / steps + 0.5, height: 12,
        fill: colour(data.colours, (k + 0.5) / steps).fill }));
    const labels = ticks(LOW, HIGH, 5).map(([v, text]) =>
      make("text", { x: across(v), y: 47, "text-anchor": "middle" }, text));
    const mark = (v, network) => {
      const x = across(v);
      return network === 0
        ? make("path", { class: "mm-mark-0", d: `M${x - 5} 10 h10 v10 h-10 z` })
        : make("circle", { class: "mm-mark-1", cx: x, cy: 15, r: 5 });
    };
    const x = across(value);
    scale.replaceChildren(
      ...bar, ...labels, make("text", { x: 272, y: 60, "text-anchor": "end" }, `solubility, ${unit}`),
      make("path", { class: "mm-truth", d: `M${x} 19 v18` }),
      ...predictions.flatMap((v, k) => (v === undefined ? [] : [mark(v, k)])),
    );
  }

  // --- what the reader does -----------------------------------------------------------------------------

  function showSet(value) {
    state.set = value;
    for (const input of which.querySelectorAll("input")) input.checked = input.value === value;
    if (state.chosen < 0 || !visible(state.chosen)) {
      const order = inOrder();
      choose(order[Math.floor(order.length / 2)], false);
    } else choose(state.chosen, false);
  }

  function find() {
    const words = search.value.trim().toLowerCase();
    if (!words) return (told.textContent = "");
    const fits = (test) => mapped.find((i) => test(names[i].toLowerCase()));
    const found = fits((name) => name === words) ?? fits((name) => name.startsWith(words)) ??
      fits((name) => name.includes(words));
    told.textContent = found === undefined ? "No molecule of this map has that name." : "";
    if (found === undefined) return undefined;
    if (!visible(found)) showSet("both");
    return choose(found);
  }

  function nearest(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
    let [best, least] = [-1, 28];
    for (const i of shown()) {
      const far = Math.hypot(left(places[i][0]) - point.x, top(places[i][1]) - point.y);
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }

  set(chart, {
    onpointermove: (event) => {
      const i = event.pointerType === "mouse" ? nearest(event) : -1;
      if (i >= 0 && i !== state.chosen) choose(i, false);
    },
    onclick: (event) => choose(nearest(event)),
    onkeydown: (event) => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!by) return;
      event.preventDefault();
      const [x, y] = [left(places[state.chosen][0]), top(places[state.chosen][1])];
      let [best, least] = [-1, Infinity];
      for (const i of shown()) {
        const [dx, dy] = [left(places[i][0]) - x, top(places[i][1]) - y];
        const along = dx * by[0] + dy * by[1];
        const aside = Math.abs(dx * by[1]) + Math.abs(dy * by[0]);
        const cost = along + (aside <= along ? aside : 1e4 + aside); // rather straight on than aslant
        if (i !== state.chosen && along > 0.5 && cost < least) [best, least] = [i, cost];
      }
      choose(best);
    },
  });
  new ResizeObserver(([{ contentRect }]) => {
    if (!contentRect.width) return;
    size = { width: contentRect.width, height: Math.max(300, Math.min(460, 0.8 * contentRect.width)) };
    chart.style.height = `${size.height}px`;
    window_ = range(state.network, state.equal);
    draw();
  }).observe(chart);

  const tested = inOrder().filter((i) => data.set[i] === "test");
  choose(tested[Math.floor(tested.length / 2)] ?? mapped[0], false);
  return make(
    "div",
    { class: "molecule-map", role: "group", "aria-label": "Map of molecules" },
    make("div", { class: "mm-controls" },
      radios("Network", "network", networks.map((its, k) => [String(k), its.name]), "0", (value) => {
        state.network = Number(value);
        glide();
      }),
      which,
      make("label", { class: "mm-equal" }, equal, " the same scale on both axes")),
    make("div", {}, chart, key),
    make("div", { class: "mm-card" }, title, picture, facts, scale),
    make("div", { class: "mm-find" },
      make("label", { class: "mm-slide" }, "least soluble", slider, "most"),
      make("label", {}, "Find ", search), list, told),
    spoken,
  );
};
