// Clip browsers: every test clip of a gallery's records, a page of cards at a time. Cards that are not in the file are
// made from the first one. A record: [id, classes, outcome, instances or -1, verdicts, strip or null]; a verdict:
// [right, class, probability in thousandths, class, …]; a strip: [height of a frame, numbers of the frames, file or "",
// boxes], a box: colour, whether a subject, x, y, width, height.
const CARDS_A_PAGE = 24;
const SVG = "http://www.w3.org/2000/svg";

function svgElement(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function setMark(holder, right) {
  const mark = holder.querySelector(".right, .wrong");
  mark.className = right ? "right" : "wrong";
  mark.textContent = right ? "✓" : "✗";
  mark.nextElementSibling.textContent = right ? "right" : "wrong";
}

function makeStrip(strip, layout) {
  const [height, numbers, file, boxes] = strip;
  const columns = Math.min(layout.columns, numbers.length);
  const cells = numbers.map((number, place) => ({
    number,
    x: (place % columns) * (layout.width + layout.gap),
    y: Math.floor(place / columns) * (height + layout.gap),
  }));
  const whole = [
    columns * (layout.width + layout.gap) - layout.gap,
    Math.ceil(numbers.length / columns) * (height + layout.gap) - layout.gap,
  ];
  const said = file ? "Sampled frames with boxes" : "Boxes of the sampled frames, without pixels";
  const words = `${said}: frames ${numbers.join(", ")}.`;
  const holder = document.createElement("div");
  holder.className = "strip";
  holder.style.aspectRatio = `${whole[0]} / ${whole[1]}`;
  const drawing = svgElement("svg", { viewBox: `0 0 ${whole[0]} ${whole[1]}`, role: "img", "aria-label": words });
  const blanks = cells.map((cell) => svgElement("rect", { class: "blank", x: cell.x, y: cell.y, width: layout.width, height }));
  const group = svgElement("g", { class: "boxes" });
  for (let at = 0; at < boxes.length; at += 6) {
    const [colour, subject, x, y, width, tall] = boxes.slice(at, at + 6);
    const place = { x, y, width, height: tall };
    group.append(svgElement("rect", { class: "halo", ...place }));
    group.append(svgElement("rect", { class: subject ? "subject" : "object", stroke: layout.colours[colour], ...place }));
  }
  const texts = cells.map((cell) => {
    const text = svgElement("text", { x: cell.x + 5, y: cell.y + height - 6 });
    text.textContent = cell.number;
    return text;
  });
  drawing.append(...blanks, group, ...texts);
  if (file) {
    const picture = new Image(whole[0], whole[1]);
    picture.alt = words;
    // the page may have been moved without its folder: then the boxes stay on blank frames
    picture.addEventListener("load", () => blanks.forEach((blank) => blank.remove()));
    picture.addEventListener("error", () => picture.remove());
    picture.src = file;
    holder.append(picture);
  }
  holder.append(drawing);
  return holder;
}

function makeCard(pattern, record, data) {
  const [id, classes, , , verdicts, strip] = record;
  const card = pattern.cloneNode(true);
  card.dataset.clip = id;
  card.querySelector("h4").textContent = classes.map((k) => data.classes[k]).join(" · ") || "no label";
  card.querySelector(".clip-id").textContent = `clip ${id}`;
  card.querySelector(".strip")?.remove();
  if (strip) card.querySelector("figure").prepend(makeStrip(strip, data.layout));
  card.querySelectorAll(".verdict").forEach((verdict, system) => {
    const [right, ...guesses] = verdicts[system];
    setMark(verdict.querySelector(".model"), right);
    const list = verdict.querySelector("ol");
    const first = list.firstElementChild;
    const items = [];
    for (let at = 0; at < guesses.length; at += 2) {
      const item = first.cloneNode(true);
      const isRight = classes.includes(guesses[at]);
      const share = `${(guesses[at + 1] / 10).toFixed(1)}`;
      item.className = isRight ? "is-right" : "is-wrong";
      setMark(item, isRight);
      item.querySelector(".name").textContent = data.classes[guesses[at]];
      item.querySelector(".probability").textContent = `${share} %`;
      item.querySelector(".bar span").style.width = `${share}%`;
      items.push(item);
    }
    list.replaceChildren(...items);
  });
  return card;
}

for (const gallery of document.querySelectorAll(".gallery")) {
  const form = gallery.querySelector("form");
  const list = gallery.querySelector(".cards");
  const data = JSON.parse(gallery.querySelector("script").textContent);
  const inFile = new Map(Array.from(list.children, (card) => [card.dataset.clip, card]));
  const pattern = list.firstElementChild;
  const [back, on] = gallery.querySelectorAll(".pages button");
  let found = data.clips;
  let page = 0;
  const show = () => {
    const pages = Math.max(1, Math.ceil(found.length / CARDS_A_PAGE));
    const first = page * CARDS_A_PAGE;
    const shown = found.slice(first, first + CARDS_A_PAGE);
    list.replaceChildren(...shown.map((record) => inFile.get(record[0]) || makeCard(pattern, record, data)));
    gallery.classList.toggle("without-boxes", !form.elements["boxes"].checked);
    gallery.querySelector(".pages").hidden = pages === 1;
    gallery.querySelector(".pages span").textContent = `page ${page + 1} of ${pages}`;
    back.disabled = page === 0;
    on.disabled = page === pages - 1;
    form.querySelector("output").textContent = `${found.length} of ${data.clips.length} clips`;
  };
  const filter = () => {
    const outcome = form.querySelector("input[type=radio]:checked").value;
    const [label, instances] = [form.elements["class"].value, form.elements["instances"]?.value];
    found = data.clips.filter(
      (clip) =>
        (!outcome || clip[2] === Number(outcome)) &&
        (!label || clip[1].includes(Number(label))) &&
        (!instances || clip[3] === Number(instances)),
    );
    page = 0;
    show();
  };
  const turn = (by) => {
    page += by;
    show();
    gallery.scrollIntoView();
  };
  back.addEventListener("click", () => turn(-1));
  on.addEventListener("click", () => turn(1));
  form.hidden = false;
  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter(); // a browser may have kept the choices of an earlier visit
}
