// What the interactive figures share. Each page brings a drawing and its data; a figure's own script adds its builder
// to `interactive.kinds`. If a builder fails, the drawing stays.
"use strict";

const interactive = {
  kinds: {},

  // An element with attributes, listeners ("on…") and children.
  make(tag, attributes = {}, ...children) {
    const inSvg = ["svg", "g", "circle", "line", "path", "rect", "text", "title", "tspan", "polygon"].includes(tag);
    const element = inSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    interactive.set(element, attributes);
    element.append(...children);
    return element;
  },

  set(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === null || value === false) element.removeAttribute(name);
      else element.setAttribute(name, value === true ? "" : value);
    }
    return element;
  },

  // The colour of a fraction of a scale of hexadecimal colours, and black or white for a text on it.
  colour(scale, fraction) {
    const place = Math.min(1, Math.max(0, fraction)) * (scale.length - 1);
    const low = Math.min(Math.floor(place), scale.length - 2);
    const part = (hex, c) => parseInt(hex.slice(1 + 2 * c, 3 + 2 * c), 16);
    const mixed = [0, 1, 2].map((c) => part(scale[low], c) * (low + 1 - place) + part(scale[low + 1], c) * (place - low));
    const light = [0.2126, 0.7152, 0.0722].reduce((sum, w, c) => sum + w * (mixed[c] / 255) ** 2.2, 0);
    return { fill: `rgb(${mixed.map(Math.round).join(" ")})`, ink: light > 0.179 ? "#000" : "#fff" };
  },

  // A number with a true minus sign.
  number(value, digits) {
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  },

  // Says the last of several texts, once they have stopped coming.
  speaker(element, wait = 700) {
    let timer = 0;
    return (text) => {
      clearTimeout(timer);
      timer = setTimeout(() => (element.textContent = text), wait);
    };
  },

  still: () => matchMedia("(prefers-reduced-motion: reduce)").matches,

  mount(place) {
    const build = interactive.kinds[place.dataset.figure];
    const data = JSON.parse(place.querySelector('script[type="application/json"]').textContent);
    const drawing = place.querySelector("picture, img");
    const widget = build(data);
    const button = interactive.make("button", { type: "button", class: "interactive-switch", "aria-expanded": "false" });
    const show = (drawn) => {
      drawing.classList.toggle("interactive-hidden", !drawn);
      button.setAttribute("aria-expanded", String(drawn));
      button.textContent = drawn ? "Hide the still figure" : "Show the still figure";
    };
    button.addEventListener("click", () => show(button.getAttribute("aria-expanded") !== "true"));
    place.prepend(widget, button);
    place.classList.add("interactive-ready");
    show(false);
  },
};

document.addEventListener("DOMContentLoaded", () => {
  for (const place of document.querySelectorAll(".interactive[data-figure]")) {
    try {
      interactive.mount(place);
    } catch (error) {
      console.error(error);
    }
  }
});
