"use strict";
const find = (selector, root = document) => root.querySelector(selector);
const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

for (const element of findAll(".needs-script")) element.hidden = false;

/* Light and dark: the system's choice until the button is pressed. */
const theme = find("#theme");
const isDark = () =>
  (document.documentElement.dataset.theme ??
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
nameTheme();

/* Tables: a click on a head sorts by its column, another one the other way; unknown values last. */
function sortTable(table, column, sign) {
  const valueOf = (row) => row.cells[column].dataset.value;
  const compare = (a, b) => {
    const [x, y] = [valueOf(a), valueOf(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
  };
  const body = table.tBodies[table.tBodies.length - 1];
  body.append(...[...body.rows].sort(compare));
}
for (const table of findAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => find("button", head).addEventListener("click", () => {
    const first = head.classList.contains("n") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    sortTable(table, column, order === "ascending" ? 1 : -1);
  }));
}

/* One sample, two sets of classes over it, and the boundary between them. */
const samples = findAll(".strip");
const compare = find("#compare");
const choices = { sample: find("#sample"), left: find("#left"), right: find("#right") };
function showComparison() {
  const strip = samples[choices.sample.value];
  compare.style.cssText = strip.style.cssText;
  compare.style.setProperty("--cut", `${find("#cut").value}%`);
  for (const side of ["left", "right"]) {
    const image = find(`img.${side}`, compare);
    const source = find(`img[data-network="${CSS.escape(choices[side].value)}"]`, strip);
    image.src = source.src;
    image.alt = source.alt;
    find(`span.${side}`, compare).textContent = choices[side].value;
  }
}
function chooseSample() {
  showComparison();
  showSimilarities(0.5, 0.5);
}

/* Similarities: the cosine of one pixel's embedding with every other's. */
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
function unitVectors(map) {
  const values = new Int8Array(bytesOf(map.values).buffer);
  const cells = map.height * map.width;
  return Array.from({ length: cells }, (_, cell) => {
    const vector = map.scales.map((scale, r) => scale * values[r * cells + cell]);
    const length = Math.hypot(...vector) || 1;
    return vector.map((value) => value / length);
  });
}
const cellOf = (map, x, y) =>
  Math.min(map.height - 1, Math.floor(y * map.height)) * map.width +
  Math.min(map.width - 1, Math.floor(x * map.width));
function similarities(map, x, y) {
  map.vectors ??= unitVectors(map);
  const chosen = map.vectors[cellOf(map, x, y)];
  return map.vectors.map((vector) => vector.reduce((sum, value, r) => sum + value * chosen[r], 0));
}
const RAMP = [[13, 8, 72], [93, 24, 126], [168, 46, 95], [226, 93, 49], [249, 170, 45], [252, 253, 191]];
function colourOf(share) {
  const place = Math.min(RAMP.length - 1.001, Math.max(0, share * (RAMP.length - 1)));
  const [low, high] = [RAMP[Math.floor(place)], RAMP[Math.floor(place) + 1]];
  return low.map((value, channel) => value + (place % 1) * (high[channel] - value));
}
function paint(canvas, map, values, lowest) {
  [canvas.width, canvas.height] = [map.width, map.height];
  const pixels = new ImageData(map.width, map.height);
  values.forEach((value, cell) => {
    const share = (value - lowest) / Math.max(1 - lowest, 1e-9);
    pixels.data.set([...colourOf(share), 255], 4 * cell);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
const write = (value) => value.toFixed(2).replace("-0.00", "0.00").replace("-", "−");
/* The mean similarity to the other pixels of the chosen one's class, and to those of other classes. */
function contrast(labels, map, values, chosen) {
  const sums = { same: [0, 0], other: [0, 0] };
  values.forEach((value, cell) => {
    const x = ((cell % map.width) + 0.5) / map.width;
    const y = (Math.floor(cell / map.width) + 0.5) / map.height;
    const label = labels.bytes[cellOf(labels, x, y)];
    if (label === 255) return;
    const sum = sums[label === chosen ? "same" : "other"];
    sum[0] += value;
    sum[1] += 1;
  });
  const mean = ([sum, count]) => (count ? write(sum / count) : "–");
  return `same class ${mean(sums.same)}, others ${mean(sums.other)}`;
}

const maps = JSON.parse(find("#maps").textContent);
const picker = find("#picker");
const pixel = { x: 0.5, y: 0.5 };
function showSimilarities(x, y) {
  Object.assign(pixel, { x, y });
  const { labels, maps: networks } = maps.samples[choices.sample.value];
  labels.bytes ??= bytesOf(labels.values);
  const chosen = labels.bytes[cellOf(labels, x, y)];
  const photo = samples[choices.sample.value].style.cssText;
  for (const view of findAll(".similar .view")) {
    view.style.cssText = `${photo};--x:${100 * x}%;--y:${100 * y}%`;
  }
  networks.forEach((map, n) => {
    const figure = find(`.similar figure[data-map="${n}"]`);
    const values = similarities(map, x, y);
    const lowest = values.reduce((least, value) => Math.min(least, value), 1);
    paint(find("canvas", figure), map, values, lowest);
    find(".lowest", figure).textContent = write(lowest);
    find(".quiet", figure).textContent =
      chosen === 255 ? "no label here" : contrast(labels, map, values, chosen);
  });
  find("#chosen").textContent =
    `${maps.classes[chosen] ?? "void"}, ${Math.round(100 * x)} % from the left, ` +
    `${Math.round(100 * y)} % from the top`;
}
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
function pickByKey(event) {
  const arrow = ARROWS[event.key];
  if (!arrow) return;
  event.preventDefault();
  const { width, height } = maps.samples[choices.sample.value].labels;
  const within = (value, cells) => Math.min(1 - 0.5 / cells, Math.max(0.5 / cells, value));
  showSimilarities(
    within(pixel.x + arrow[0] / width, width), within(pixel.y + arrow[1] / height, height));
}
function pickByPointer(event) {
  const box = event.currentTarget.getBoundingClientRect();
  showSimilarities((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
}

if (samples.length) {
  choices.sample.addEventListener("change", chooseSample);
  for (const side of ["left", "right"]) choices[side].addEventListener("change", showComparison);
  find("#cut").addEventListener("input", showComparison);
  picker.addEventListener("keydown", pickByKey);
  for (const view of findAll(".similar .view")) view.addEventListener("click", pickByPointer);
  find("#opacity").addEventListener("input", (event) => {
    document.documentElement.style.setProperty("--opacity", event.target.value / 100);
  });
  chooseSample();
}

/* The feature space: a pressed class stays, the others fade. */
for (const button of findAll("button.class")) {
  button.addEventListener("click", () => {
    const pressed = button.getAttribute("aria-pressed") !== "true";
    for (const each of findAll("button.class")) {
      each.setAttribute("aria-pressed", pressed && each === button);
    }
    for (const dots of findAll(".spaces [data-class]")) {
      dots.classList.toggle("faded", pressed && dots.dataset.class !== button.dataset.class);
    }
  });
}

/* On paper everything is open. */
addEventListener("beforeprint", () => { for (const each of findAll("details")) each.open = true; });
