/* Pictures under their image tokens: zoom, pan, point at a token, ask for one. All panels move together.
 *
 * Text of models and files is set by textContent and setAttribute alone, never as HTML. `data` is what
 * `app/picture/panels.py` writes. Reported: state `zoom` ("2@0.5,0.5"; "" is the whole picture), triggers `token`
 * ({panel, token}) and `open` (a panel's key).
 */
const MOST = 16; // times
const STEP = 1.5;
const SETTLED_MS = 400; // after the last movement, the zoom is reported
const DRAG_PX = 4; // less is a click
const SMALLEST_PX = 96; // a smaller picture is blown up to this
const FIELDS = 5; // of `places`: token, left, top, right, bottom in 1/10000 of the picture
const PARTS = 10000;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const roots = new WeakMap();

export default function (component) {
  const { data, parentElement } = component;
  let root = roots.get(parentElement);
  if (!root || !root.element.isConnected) {
    root = new Root(parentElement);
    roots.set(parentElement, root);
  }
  root.report = component;
  root.show(data);
  return () => root.leave();
}

class Root {
  constructor(parent) {
    this.element = parent.querySelector(".picture");
    this.zoom = WHOLE;
    this.panels = [];
  }

  show(data) {
    if (data.id !== this.id) this.build(data);
    if (data.zoom !== this.reported) {
      this.reported = data.zoom;
      this.moveTo(parsed(data.zoom), false);
    }
    this.choose(data.token);
  }

  /** The elements of all panels, anew; the token that had the focus has it again. */
  build(data) {
    const active = this.element.getRootNode().activeElement;
    const focus = active && [Number(active.dataset.panel), active.dataset.token];
    this.id = data.id;
    this.data = data;
    this.panels = data.panels.map((panel, number) => new Panel(this, panel, number));
    const panels = made("div", "panels");
    panels.append(...this.panels.map((panel) => panel.element));
    this.element.replaceChildren(panels, this.bar());
    this.moveTo(this.zoom, false);
    if (focus && focus[1] !== undefined) this.panels[focus[0]]?.focus(focus[1]);
    this.tell(null);
  }

  bar() {
    const bar = made("div", "bar");
    const button = (sign, label, act) => {
      const one = made("button", "", sign);
      one.type = "button";
      one.title = label;
      one.setAttribute("aria-label", label);
      one.onclick = act;
      bar.append(one);
      return one;
    };
    this.nearer = button("+", "Zoom in", () => this.times(STEP));
    this.farther = button("−", "Zoom out", () => this.times(1 / STEP));
    this.whole = button("⟲", "Whole picture (Escape)", () => this.moveTo(WHOLE));
    this.told = made("div", "told");
    this.told.setAttribute("role", "status");
    bar.append(this.told);
    return bar;
  }

  times(factor, x = this.zoom.x, y = this.zoom.y) {
    const times = Math.min(MOST, Math.max(1, this.zoom.times * factor));
    const kept = this.zoom.times / times; // what is under (x, y) stays there
    this.moveTo({ times, x: x + (this.zoom.x - x) * kept, y: y + (this.zoom.y - y) * kept });
  }

  moveTo(zoom, isReported = true) {
    const half = 0.5 / zoom.times;
    const within = (value) => Math.min(1 - half, Math.max(half, value));
    this.zoom = { times: zoom.times, x: within(zoom.x), y: within(zoom.y) };
    this.panels.forEach((panel) => panel.place(this.zoom));
    if (this.nearer) {
      this.nearer.disabled = this.zoom.times >= MOST;
      this.farther.disabled = this.whole.disabled = this.zoom.times <= 1;
    }
    if (isReported) this.reportSoon();
  }

  reportSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const written = spelled(this.zoom);
      if (written === this.reported) return;
      this.reported = written;
      this.report.setStateValue("zoom", written);
    }, SETTLED_MS);
  }

  choose(token) {
    this.chosen = token;
    for (const panel of this.panels) panel.mark("chosen", token);
  }

  /** Says what is known of a token, and marks it in every panel of the same grid. */
  tell(panel, token) {
    for (const one of this.panels) one.mark("pointed", panel && one.grid === panel.grid ? token : null);
    this.told.textContent = panel ? this.sentence(panel, token) : this.data.note;
  }

  sentence(panel, token) {
    const said = panel.grid.words[token];
    const values = this.panels
      .filter((one) => one.grid === panel.grid && one.data.values[token] !== undefined)
      .map((one) => `${one.data.measure} ${one.data.values[token]}`);
    return [`Image token ${token}`, ...(said ? [said] : []), ...values].join(" · ");
  }

  leave() {
    clearTimeout(this.timer);
  }
}

class Panel {
  constructor(root, data, number) {
    this.root = root;
    this.data = data;
    this.number = number;
    this.grid = root.data.grids[data.grid] ?? NOWHERE;
    this.tokens = new Map();
    this.element = made("figure", "panel");
    this.window = made("div", "window");
    this.stage = made("div", "stage");
    this.window.append(this.stage);
    this.stage.append(this.picture(), ...this.places());
    this.window.setAttribute("role", "group");
    this.window.setAttribute("aria-label", data.alt);
    if (!this.tokens.size) this.window.tabIndex = 0;
    if (data.title) this.element.append(this.caption());
    this.element.append(this.window);
    this.listen();
  }

  picture() {
    const { width, height } = this.data;
    const larger = Math.max(1, SMALLEST_PX / Math.max(width, height));
    const image = made("img", larger > 1 ? "tiny" : "");
    image.src = this.data.image;
    image.alt = this.data.alt;
    image.draggable = false;
    // Written as a share of the window, so that a narrow one holds it whole.
    this.window.style.width = `${Math.max(width * larger, SMALLEST_PX)}px`;
    this.window.style.minHeight = `${SMALLEST_PX}px`;
    this.stage.style.width = `min(100%, ${width * larger}px)`;
    this.stage.style.aspectRatio = `${width} / ${height}`;
    return image;
  }

  caption() {
    const caption = made("figcaption", "");
    if (!this.data.key) {
      caption.textContent = this.data.title;
      return caption;
    }
    const button = made("button", "", this.data.title);
    button.type = "button";
    button.onclick = () => this.root.report.setTriggerValue("open", this.data.key);
    caption.append(button);
    return caption;
  }

  places() {
    const { places, words } = this.grid;
    const found = [];
    for (let at = 0; at < places.length; at += FIELDS) {
      const [token, left, top, right, bottom] = places.slice(at, at + FIELDS);
      const one = made("button", "token", this.data.words[token] ?? "");
      one.type = "button";
      one.tabIndex = found.length ? -1 : 0; // one stop of the Tab key; arrows go on from there
      one.dataset.token = token;
      one.dataset.panel = this.number;
      one.setAttribute("aria-label", this.label(token, words[token]));
      one.style.left = share(left);
      one.style.top = share(top);
      one.style.width = share(right - left);
      one.style.height = share(bottom - top);
      one.style.background = this.data.colours[token] ?? "";
      const letters = Math.max(3.5, 0.65 * one.textContent.length); // long words fit, too
      one.style.fontSize = `${(right - left) / (PARTS / 100) / letters}cqw`;
      this.tokens.set(String(token), { element: one, x: (left + right) / 2, y: (top + bottom) / 2 });
      found.push(one);
    }
    return found;
  }

  label(token, said) {
    const value = this.data.values[token];
    const known = value === undefined ? "" : `, ${this.data.measure} ${value}`;
    return `Image token ${token}${said ? `: ${said}` : ""}${known}`;
  }

  mark(name, token) {
    this.stage.querySelectorAll(`.${name}`).forEach((one) => one.classList.remove(name));
    this.tokens.get(String(token))?.element.classList.add(name);
  }

  focus(token) {
    const found = this.tokens.get(String(token));
    if (!found) return;
    for (const { element } of this.tokens.values()) element.tabIndex = -1;
    found.element.tabIndex = 0;
    found.element.focus({ preventScroll: true });
    this.reveal(found);
  }

  /** Brings a token into a zoomed window. */
  reveal({ x, y }) {
    const { zoom } = this.root;
    const half = 0.5 / zoom.times;
    if (Math.abs(x / PARTS - zoom.x) > half || Math.abs(y / PARTS - zoom.y) > half)
      this.root.moveTo({ times: zoom.times, x: x / PARTS, y: y / PARTS });
  }

  place({ times, x, y }) {
    this.stage.style.transform = `translate(${(0.5 - times * x) * 100}%, ${(0.5 - times * y) * 100}%) scale(${times})`;
    this.window.classList.toggle("zoomed", times > 1);
    this.window.scrollTo(0, 0); // a focus may have scrolled what is cut off
  }

  listen() {
    const on = (name, act, options) => this.window.addEventListener(name, act, options);
    const tokenOf = (event) => event.target.dataset?.token;
    on("pointerover", (event) => tokenOf(event) !== undefined && this.root.tell(this, tokenOf(event)));
    on("pointerleave", () => this.root.tell(null));
    on("focusin", (event) => tokenOf(event) !== undefined && this.root.tell(this, tokenOf(event)));
    on("click", (event) => this.ask(tokenOf(event)));
    on("dblclick", (event) => this.zoomAt(event, STEP * STEP));
    on("wheel", (event) => this.wheel(event), { passive: false });
    on("keydown", (event) => this.key(event));
    on("pointerdown", (event) => this.grab(event));
  }

  ask(token) {
    if (token === undefined || this.moved) return;
    const panel = this.data.key;
    this.root.report.setTriggerValue("token", { panel, token: Number(token) });
  }

  /** Only with Ctrl or ⌘ (a pinch on a touchpad has it): else the page is scrolled. */
  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    this.zoomAt(event, Math.exp(-event.deltaY / 300));
  }

  zoomAt(event, factor) {
    const box = this.stage.getBoundingClientRect(); // of the zoomed stage
    const within = (at, start, size) => (size ? (at - start) / size : 0.5);
    this.root.times(factor, within(event.clientX, box.left, box.width), within(event.clientY, box.top, box.height));
  }

  key(event) {
    const { root } = this;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = { "+": STEP, "=": STEP, "-": 1 / STEP };
    const arrow = ARROWS[event.key];
    if (event.key === "Escape" || event.key === "0") root.moveTo(WHOLE);
    else if (acts[event.key]) this.nearTo(event.target.dataset?.token, acts[event.key]);
    else if (arrow && this.tokens.size) this.step(event.target.dataset?.token, arrow);
    else if (arrow) this.shift(arrow);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Zooms towards a token, or where one is. */
  nearTo(token, factor) {
    const found = this.tokens.get(String(token));
    this.root.times(factor, ...(found ? [found.x / PARTS, found.y / PARTS] : []));
    if (found) this.reveal(found);
  }

  /** The nearest token in the arrow's direction; what is straight ahead counts as nearer. */
  step(token, [dx, dy]) {
    const from = this.tokens.get(String(token)) ?? this.tokens.values().next().value;
    let best = null;
    for (const [name, to] of this.tokens) {
      const ahead = (to.x - from.x) * dx + (to.y - from.y) * dy;
      const aside = Math.abs((to.x - from.x) * dy) + Math.abs((to.y - from.y) * dx);
      if (ahead > 1 && (!best || ahead + 3 * aside < best.far)) best = { name, far: ahead + 3 * aside };
    }
    if (best) this.focus(best.name);
  }

  shift([dx, dy]) {
    const { times, x, y } = this.root.zoom;
    this.root.moveTo({ times, x: x + (0.2 * dx) / times, y: y + (0.2 * dy) / times });
  }

  /** Drags the zoomed picture. */
  grab(event) {
    this.moved = false;
    if (event.button || this.root.zoom.times <= 1) return;
    const from = { x: event.clientX, y: event.clientY, zoom: this.root.zoom };
    const box = this.stage.getBoundingClientRect();
    const move = (now) => {
      const [dx, dy] = [now.clientX - from.x, now.clientY - from.y];
      if (!this.moved && Math.hypot(dx, dy) < DRAG_PX) return;
      this.moved = true;
      this.window.classList.add("moving");
      const { times, x, y } = from.zoom;
      this.root.moveTo({ times, x: x - dx / box.width, y: y - dy / box.height });
    };
    const end = () => {
      this.window.classList.remove("moving");
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", end);
      removeEventListener("pointercancel", end);
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end);
    addEventListener("pointercancel", end);
  }
}

const WHOLE = { times: 1, x: 0.5, y: 0.5 };
const NOWHERE = { places: [], words: [] };

function made(name, className, text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

function share(parts) {
  return `${(100 * parts) / PARTS}%`;
}

function parsed(text) {
  const found = /^([\d.]+)@([\d.]+),([\d.]+)$/.exec(text || "");
  return found ? { times: Number(found[1]), x: Number(found[2]), y: Number(found[3]) } : WHOLE;
}

function spelled({ times, x, y }) {
  const short = (number) => String(Math.round(number * 1000) / 1000);
  return times <= 1 ? "" : `${short(times)}@${short(x)},${short(y)}`;
}
