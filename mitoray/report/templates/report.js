"use strict";
(() => {
  const MOST_OPENED = 50;
  const SVG = "http://www.w3.org/2000/svg";
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const columns = table.tHead.rows[0].cells.length;
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const byId = (id) => document.getElementById(id);
  const filters = document.querySelector(".filters");
  const panels = new Map();

  // ---- elements: text is only ever text

  function element(name, properties = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key in made) made[key] = value; else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }
  function drawn(name, attributes = {}) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }
  const number = (value, digits = 0) =>
    value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

  // ---- sorting

  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = cell.textContent.trim();
    return text === "–" ? null : text;
  };
  function sort(head) {
    const column = head.cellIndex;
    const numbers = head.classList.contains("number");
    // Numbers start with the highest, which is what one looks for; names with the first.
    const first = numbers ? "descending" : "ascending";
    const other = numbers ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const cell of table.tHead.rows[0].cells) cell.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const keyed = rows.map((row, place) => [key(row, column), place, row]);
    keyed.sort(([a, i], [b, j]) => {
      if (a === null || b === null) return (a === null) - (b === null) || i - j;
      return sign * (typeof a === "number" ? a - b : collator.compare(a, b)) || i - j;
    });
    const sorted = document.createDocumentFragment();
    for (const [, , row] of keyed) {
      sorted.append(row);
      if (panels.has(row)) sorted.append(panels.get(row));
    }
    body.append(sorted);
    tell(`Sorted by ${head.textContent.trim()}, ${order}.`);
  }

  // ---- filtering

  const texts = new Map();
  function textOf(row) {
    if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
    return texts.get(row);
  }
  function filter() {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const status = byId("status").value;
    const domain = byId("domain") ? byId("domain").value : "";
    const least = byId("least").value === "" ? null : Number(byId("least").value);
    for (const row of rows) {
      const shown =
        words.every((word) => textOf(row).includes(word)) &&
        (!status || row.dataset.status === status) &&
        (!domain || row.dataset.domain === domain) &&
        (least === null || Number(row.dataset.count ?? -1) >= least);
      row.hidden = !shown;
      if (panels.has(row)) panels.get(row).hidden = !shown;
    }
    tell("");
  }
  const shownRows = () => rows.filter((row) => !row.hidden);
  function tell(words) {
    const shown = shownRows().length;
    byId("shown").textContent = `${number(shown)} of ${number(rows.length)} slides. ${words}`;
    byId("none-shown").hidden = shown > 0;
    const button = byId("open-shown");
    button.disabled = shown === 0 || shown > MOST_OPENED;
    button.title = shown > MOST_OPENED ? `Filter to ${MOST_OPENED} slides at most` : "";
    byId("close-all").disabled = panels.size === 0;
  }

  // ---- panels: their data lie in the page as text, and become nodes when a slide is opened

  function dataOf(row) {
    const holder = byId(`panel-${row.dataset.place}`);
    return holder && { place: row.dataset.place, ...JSON.parse(holder.textContent) };
  }
  function open(row) {
    if (panels.has(row)) return;
    const data = dataOf(row);
    if (!data) return; // the page is still loading
    const cell = element("td", { colSpan: columns });
    const holder = element("tr", { className: "opened", id: `opened-${row.dataset.place}` }, cell);
    cell.append(panelOf(row, data));
    row.after(holder);
    panels.set(row, holder);
    const button = row.querySelector(".open");
    button.setAttribute("aria-expanded", "true");
    button.setAttribute("aria-controls", holder.id);
    byId("close-all").disabled = false;
  }
  function close(row) {
    if (!panels.has(row)) return;
    panels.get(row).remove();
    panels.delete(row);
    const button = row.querySelector(".open");
    button.setAttribute("aria-expanded", "false");
    button.removeAttribute("aria-controls");
    byId("close-all").disabled = panels.size === 0;
  }
  function panelOf(row, data) {
    const panel = byId("panel").content.cloneNode(true).firstElementChild;
    const title = panel.querySelector("h3");
    title.textContent = data.slide_id;
    panel.setAttribute("aria-label", `Slide ${data.slide_id}`);
    panel.querySelector(".permalink").href = `#${row.id}`;
    panel.querySelector(".close").addEventListener("click", () => {
      close(row);
      row.querySelector(".open").focus();
    });
    if (data.trouble) {
      const trouble = panel.querySelector(".trouble");
      trouble.textContent = data.trouble;
      trouble.hidden = false;
    }
    const facts = panel.querySelector(".facts");
    for (const [name, value] of data.facts) {
      facts.append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
    }
    const links = panel.querySelector(".links");
    for (const link of data.links) {
      const shown = link.href ? element("a", { href: link.href }, link.text) : element("span", {}, link.text);
      links.append(shown, element("br"));
    }
    const mark = data.width_um ? drawMap(panel.querySelector(".map"), data) : null;
    drawGalleries(panel, data, mark);
    return panel;
  }

  // ---- the overview and what lies over it; lengths in µm of the slide

  function viewOf(data) {
    const { width_um: width, height_um: height, circle, rectangle } = data;
    const edges = [0, 0, width, height];
    const most = 0.3 * Math.max(width, height); // fields may be larger than a small slide
    const reach = (x0, y0, x1, y1) => {
      // One that is far larger than its slide is not worth making the slide small.
      if (Math.min(x0, y0) < -most || x1 > width + most || y1 > height + most) return;
      edges[0] = Math.min(edges[0], x0);
      edges[1] = Math.min(edges[1], y0);
      edges[2] = Math.max(edges[2], x1);
      edges[3] = Math.max(edges[3], y1);
    };
    if (circle) {
      const r = circle.radius_um;
      reach(circle.x_um - r, circle.y_um - r, circle.x_um + r, circle.y_um + r);
    }
    if (rectangle) {
      reach(rectangle.x_um, rectangle.y_um, rectangle.x_um + rectangle.width_um, rectangle.y_um + rectangle.height_um);
    }
    const margin = 0.02 * Math.max(edges[2] - edges[0], edges[3] - edges[1]);
    return { x: edges[0] - margin, y: edges[1] - margin, width: edges[2] - edges[0] + 2 * margin, height: edges[3] - edges[1] + 2 * margin };
  }
  function drawMap(figure, data) {
    figure.hidden = false;
    const svg = figure.querySelector("svg");
    const view = viewOf(data);
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
    const slide = { x: 0, y: 0, width: data.width_um, height: data.height_um, preserveAspectRatio: "none" };
    const told = [`Overview of slide ${data.slide_id}, ${number(data.width_um / 1000, 2)} by ${number(data.height_um / 1000, 2)} mm`];
    const layers = figure.querySelector(".layers");
    const layer = (text, symbol, shown, ...shapes) => {
      const group = drawn("g");
      group.append(...shapes);
      group.style.display = shown ? "" : "none";
      svg.append(group);
      const box = element("input", { type: "checkbox", checked: shown });
      box.addEventListener("change", () => { group.style.display = box.checked ? "" : "none"; });
      const label = element("label", {}, box);
      if (symbol) {
        const sample = drawn("svg", { viewBox: "0 0 32 20", "aria-hidden": "true" });
        sample.append(symbol);
        label.append(sample);
      }
      label.append(text);
      layers.append(label);
    };
    if (data.overview) svg.append(drawn("image", { ...slide, href: data.overview }));
    else told.push("the slide itself could not be read");
    if (data.density) {
      const { src, width_um, height_um, highest, top, area_mm2 } = data.density;
      const image = drawn("image", { class: "density", x: 0, y: 0, width: width_um, height: height_um, preserveAspectRatio: "none", href: src });
      layer("Density", drawn("rect", { x: 2, y: 3, width: 28, height: 14, fill: "#21918c" }), true, ...onTissue(image, data));
      const scale = figure.querySelector(".scale");
      scale.hidden = false;
      scale.querySelector(".least").textContent = "1";
      scale.querySelector(".highest").textContent = `${number(top)} figures in the ${area_mm2.toLocaleString("en")} mm² around each place; here at most ${number(highest)}`;
      told.push(`at most ${highest} figures in ${area_mm2} mm² around any place of its density map`);
    }
    if (data.outline && data.outline.d) {
      const outline = drawn("path", { class: "outline", d: data.outline.d, transform: acrossSlide(data) });
      layer("Tissue outline", drawn("path", { class: "outline", d: "M2 14L10 5L22 7L30 15" }), true, outline);
    }
    if (data.dots) {
      const { d, shown, of } = data.dots;
      const text = shown < of ? `Figures, the ${number(shown)} best of ${number(of)}` : `Figures (${number(of)})`;
      layer(text, drawn("path", { class: "dots", d: "M8 12h0M16 7h0M24 13h0" }), true, drawn("path", { class: "dots", d }));
    }
    const larger = (across, down) => (across > data.width_um && down > data.height_um ? ", larger than the slide" : "");
    if (data.circle) {
      const { x_um: cx, y_um: cy, radius_um: r, area_mm2, count } = data.circle;
      const shapes = ["halo", "circle"].map((name) => drawn("circle", { class: name, cx, cy, r }));
      layer(`Hotspot circle: ${number(count)} in ${area_mm2} mm²${larger(2 * r, 2 * r)}`, drawn("circle", { class: "circle", cx: 16, cy: 10, r: 8 }), true, ...shapes);
      told.push(`the circle of ${area_mm2} mm² with most figures holds ${count}`);
    }
    if (data.rectangle) {
      const { x_um: x, y_um: y, width_um: width, height_um: height, area_mm2, count } = data.rectangle;
      const shapes = ["halo", "rectangle"].map((name) => drawn("rect", { class: name, x, y, width, height }));
      layer(`Hotspot rectangle: ${number(count)} in ${area_mm2} mm²${larger(width, height)}`, drawn("rect", { class: "rectangle", x: 4, y: 3, width: 24, height: 14 }), true, ...shapes);
      told.push(`the rectangle of ${area_mm2} mm² with most figures holds ${count}`);
    }
    if (!layers.querySelector("label")) layers.hidden = true;
    drawRuler(svg, view);
    svg.setAttribute("aria-label", `${told.join("; ")}.`);
    const marker = drawn("g");
    svg.append(marker);
    const position = figure.parentElement.querySelector(".position");
    position.textContent = data.crops.length ? `Each crop is ${data.crop_um} µm wide. Choose one to see where it lies.` : "";
    const hint = position.textContent;
    return (crop) => {
      marker.replaceChildren();
      position.textContent = hint;
      if (!crop) return;
      const [cx, cy, r] = [crop.x_um, crop.y_um, view.width / 45];
      marker.append(...["halo", "marker"].map((name) => drawn("circle", { class: name, cx, cy, r })));
      position.textContent = `Figure ${crop.rank} by score lies at x ${number(crop.x_px)}, y ${number(crop.y_px)} px of the slide: see the ring.`;
    };
  }
  // A field may lie on glass beside tissue; the map is shown where figures can be.
  function onTissue(image, data) {
    if (!data.outline || !data.outline.d) return [image];
    const id = `tissue-${data.place}`;
    const clip = drawn("clipPath", { id });
    clip.append(drawn("path", { d: data.outline.d, "clip-rule": "evenodd", transform: acrossSlide(data) }));
    image.setAttribute("clip-path", `url(#${id})`);
    return [clip, image];
  }
  const acrossSlide = ({ width_um, height_um, outline }) => `scale(${width_um / outline.columns} ${height_um / outline.rows})`;
  function drawRuler(svg, view) {
    const most = view.width / 4;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map((step) => step * power).find((step) => step <= most);
    const x = view.x + view.width * 0.03;
    const y = view.y + view.height * 0.97;
    svg.append(drawn("line", { class: "ruler", x1: x, x2: x + length, y1: y, y2: y }));
    const text = drawn("text", { class: "ruler-text", x, y: y - view.height * 0.012, "font-size": view.width / 36 });
    // The stroke around the text scales with it.
    text.style.strokeWidth = `${view.width / 180}px`;
    text.textContent = length >= 1000 ? `${length / 1000} mm` : `${length} µm`;
    svg.append(text);
  }

  // ---- crops

  const GROUPS = {
    highest: ["Highest scores", "The figures that the model is surest of."],
    borderline: ["Borderline", "Scores nearest to the threshold, where the count may be wrong by one each."],
  };
  function drawGalleries(panel, data, mark) {
    const galleries = panel.querySelector(".galleries");
    for (const [group, [title, told]] of Object.entries(GROUPS)) {
      const crops = data.crops.filter((crop) => crop.group === group);
      if (!crops.length) continue;
      const list = element("ul", { className: "gallery" });
      for (const crop of crops) list.append(element("li", {}, cropOf(crop, panel, mark)));
      const threshold = group === "borderline" && data.threshold !== null ? ` The threshold is ${number(data.threshold, 3)}.` : "";
      galleries.append(element("h4", {}, title), element("p", {}, `${told}${threshold}`), list);
    }
    if (data.left_out) galleries.append(element("p", {}, `${data.left_out} crops could not be read from the slide.`));
    if (!data.crops.length && data.no_crops) galleries.append(element("p", {}, data.no_crops));
  }
  function cropOf(crop, panel, mark) {
    const score = `score ${number(crop.score, 3)}`;
    const atypical = crop.atypical === null ? [] : [element("br"), `atypical ${number(crop.atypical, 2)}`];
    const below = crop.counted ? [] : [element("br"), element("span", { className: "below" }, "not counted")];
    const alt = `Figure ${crop.rank} by score`;
    const button = element("button", { type: "button", "aria-pressed": "false" }, element("img", { src: crop.src, alt }), score, ...atypical, ...below);
    button.addEventListener("click", () => {
      const pressed = button.getAttribute("aria-pressed") === "true";
      for (const other of panel.querySelectorAll(".gallery button")) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(!pressed));
      if (mark) mark(pressed ? null : crop);
    });
    return button;
  }

  // ---- what people do

  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (head && event.target.closest("button")) sort(head);
  });
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button.open");
    if (!button) return;
    const row = button.closest("tr");
    if (panels.has(row)) close(row); else open(row);
  });
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));
  byId("open-shown").addEventListener("click", () => shownRows().forEach(open));
  byId("close-all").addEventListener("click", () => [...panels.keys()].forEach(close));
  function follow() {
    const row = location.hash.startsWith("#slide-") && byId(location.hash.slice(1));
    if (!row) return;
    if (row.hidden) filters.reset();
    open(row);
    row.scrollIntoView();
    row.querySelector(".open").focus({ preventScroll: true });
  }
  addEventListener("hashchange", follow);
  document.addEventListener("DOMContentLoaded", follow);
  filter(); // browsers restore what was typed before a reload
})();
