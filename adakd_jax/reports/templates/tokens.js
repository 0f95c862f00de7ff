// Colours tokens by step and quantity, and explains the one that is pointed at or focused.
(() => {
  const runs = JSON.parse(document.getElementById("token-data").textContent);
  const controls = document.getElementById("token-controls");
  if (!controls) return;
  const passages = [...document.querySelectorAll(".passage")];
  const detail = document.getElementById("token-detail");
  const highestNll = 8; // nats; above that, a token has its full colour
  let shown = null, pinned = false;

  const field = (name) => controls.elements[name];
  const runNumber = () => Number(field("run") ? field("run").value : passages[0].dataset.run);
  const current = () => {
    const run = runs[runNumber()], step = Number(field("step").value);
    return { run, step, values: run.examples[Number(field("example").value)][step] };
  };
  const passage = () => passages.find((each) => !each.hidden);
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const digits = (value, count = 2) => (value === null || value === undefined ? "–" : value.toFixed(count));
  const reach = (run) => Math.max(...run.spread.map((tau) => Math.abs(Math.log(tau / run.base))), 1e-3);

  // Percent of full colour, and which colour, of token i.
  const shade = (mode, i) => {
    const { run, values } = current();
    const value = values[mode] ? values[mode][i] : null;
    if (value === null) return [0, "--hard"];
    if (mode === "score") return [(100 * value) / run.highest, "--hard"];
    if (mode === "selected") return [value ? 75 : 0, "--kept"];
    if (mode === "student_nll") return [(100 * Math.min(value, highestNll)) / highestNll, "--nll"];
    if (values.selected && !values.selected[i]) return [0, "--warm"];
    const distance = Math.log(value / run.base) / reach(run);
    return [100 * Math.abs(distance), distance < 0 ? "--cool" : "--warm"];
  };

  const legend = (mode) => {
    const { run } = current(), mix = (name) => `color-mix(in srgb, var(${name}) 62%, transparent)`;
    const [low, high] = run.spread, scale = document.getElementById("token-scale");
    const looks = {
      score: [`0, easy`, `${digits(run.highest, 0)}, hard (${run.score})`, `transparent, ${mix("--hard")}`],
      temperature: [
        `τ ${digits(low)}, sharper`,
        `${digits(high)}, softer; underlined: kept`,
        `${mix("--cool")}, transparent, ${mix("--warm")}`,
      ],
      selected: ["left out", "kept", `transparent 50%, ${mix("--kept")} 50%`],
      student_nll: ["0", `${highestNll} nats and more`, `transparent, ${mix("--nll")}`],
    };
    const [start, end, colours] = looks[mode];
    scale.querySelector(".low").textContent = start;
    scale.querySelector(".high").textContent = end;
    scale.querySelector(".bar").style.background = `linear-gradient(to right, ${colours})`;
  };

  const summary = () => {
    const { run, step, values } = current(), count = values.student_nll.length;
    const mean = (list) => list.reduce((sum, value) => sum + (value ?? 0), 0) / count;
    const parts = [`NLL ${digits(mean(values.student_nll))}`];
    if (values.teacher_nll) parts.push(`teacher ${digits(mean(values.teacher_nll))}`);
    if (values.score) parts.push(`mean difficulty ${digits(mean(values.score))}`);
    if (values.selected) {
      const kept = values.selected.reduce((a, b) => a + b);
      parts.push(`${kept} of ${count} tokens kept (r = ${digits(run.keepRatios[step])} over all examples)`);
    }
    return `This answer at step ${run.steps[step].toLocaleString("en")}: ${parts.join(" · ")}.`;
  };

  const paint = () => {
    const { run, step, values } = current(), mode = field("mode").value, number = runNumber();
    for (const each of passages) {
      const chosen = Number(each.dataset.run) === number && each.dataset.example === field("example").value;
      each.hidden = !chosen;
    }
    passage().dataset.mode = mode;
    for (const token of passage().querySelectorAll(".t")) {
      const i = Number(token.dataset.i), [percent, colour] = shade(mode, i);
      token.style.setProperty("--v", percent);
      token.style.setProperty("--scale", `var(${colour})`);
      token.classList.toggle("kept", Boolean(values.selected && values.selected[i]));
    }
    const text = `${run.steps[step].toLocaleString("en")} of ${run.total.toLocaleString("en")}`;
    document.getElementById("token-step").textContent = text;
    field("step").setAttribute("aria-valuetext", `step ${text}`);
    document.getElementById("token-summary").textContent = summary();
    legend(mode);
    if (shown && passage().contains(shown)) explain(shown);
    else hide();
  };

  // Steps and examples of the chosen run.
  const refill = () => {
    const run = runs[runNumber()];
    field("step").max = run.steps.length - 1;
    field("step").value = run.steps.length - 1;
    field("example").replaceChildren(...run.examples.map((_, i) => new Option(i + 1, i)));
    for (const choice of field("mode")) choice.disabled = !(choice.value in run.examples[0][0]);
    if (field("mode")[0].disabled) field("mode").value = "student_nll";
    paint();
  };

  const likeliest = (title, top, colour, run, actual) => {
    const column = make("div"), list = make("ol", colour);
    column.append(make("b", "", title), list);
    for (let k = 0; k < top.length; k += 2) {
      const word = run.words[top[k]], item = make("li", word === actual ? "actual" : "");
      item.style.setProperty("--p", 100 * top[k + 1]);
      const shownWord = word.replace(/\n/g, "⏎").replace(/^ /, "␣");
      item.append(make("span", "", shownWord), make("span", "", digits(top[k + 1], 3)));
      list.append(item);
    }
    return column;
  };

  const explain = (token) => {
    const { run, values } = current(), i = Number(token.dataset.i);
    const actual = token.dataset.space + token.textContent.replace(/⏎\n/g, "\n");
    const numbers = [];
    if (values.score) {
      const kept = values.selected[i] ? "kept" : "left out";
      numbers.push(`difficulty ${digits(values.score[i])}`, kept, `τ ${digits(values.temperature[i])}`);
    }
    numbers.push(`NLL ${digits(values.student_nll[i])}`);
    if (values.teacher_nll) numbers.push(`teacher ${digits(values.teacher_nll[i])}`);
    const models = make("div", "models");
    if (values.teacher) models.append(likeliest("teacher expected", values.teacher[i], "c0", run, actual));
    models.append(likeliest("student expected", values.student[i], "c1", run, actual));
    const word = make("div", "word", `“${token.textContent.trim() || token.textContent}”`);
    detail.replaceChildren(word, make("div", "numbers", numbers.join(" · ")), models);
    detail.hidden = false;
    if (shown && shown !== token) shown.removeAttribute("aria-describedby");
    token.setAttribute("aria-describedby", detail.id);
    shown = token;
    const place = token.getClientRects()[0], size = detail.getBoundingClientRect();
    const below = place.bottom + 8, fits = below + size.height < innerHeight;
    const rightmost = document.documentElement.clientWidth - size.width - 8;
    detail.style.left = `${Math.max(8, Math.min(place.left, rightmost))}px`;
    detail.style.top = `${Math.max(8, fits ? below : place.top - size.height - 8)}px`;
  };

  const hide = () => {
    detail.hidden = true;
    pinned = false;
    if (shown) shown.removeAttribute("aria-describedby");
    shown = null;
  };

  // The token above or below: the nearest one in the next line.
  const vertical = (tokens, from, direction) => {
    const place = from.getClientRects()[0], middle = (place.left + place.right) / 2;
    const beyond = tokens
      .map((token) => ({ token, at: token.getClientRects()[0] }))
      .filter(({ at }) => direction * (at.top - place.top) > 4);
    if (!beyond.length) return from;
    const line = direction * Math.min(...beyond.map(({ at }) => direction * at.top));
    const distance = ({ at }) => Math.abs((at.left + at.right) / 2 - middle);
    const inLine = beyond.filter(({ at }) => Math.abs(at.top - line) < 4);
    return inLine.sort((a, b) => distance(a) - distance(b))[0].token;
  };

  const onKey = (event) => {
    if (!event.target.matches(".t")) return;
    const tokens = [...passage().querySelectorAll(".t")], i = tokens.indexOf(event.target);
    const step = field("step"), moves = {
      ArrowRight: () => tokens[i + 1], ArrowLeft: () => tokens[i - 1],
      ArrowDown: () => vertical(tokens, event.target, 1), ArrowUp: () => vertical(tokens, event.target, -1),
      Home: () => tokens[0], End: () => tokens[tokens.length - 1],
    };
    if (event.key in moves) {
      const next = moves[event.key]() || event.target;
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else if (event.key === "[" || event.key === "]") {
      step.value = Number(step.value) + (event.key === "]" ? 1 : -1);
      paint();
    } else if (event.key === "Enter" || event.key === " ") {
      pinned = !pinned;
      explain(event.target);
    } else if (event.key === "Escape") hide();
    else return;
    event.preventDefault();
  };

  for (const each of passages) {
    each.addEventListener("keydown", onKey);
    each.addEventListener("focusin", (event) => { if (event.target.matches(".t")) explain(event.target); });
    each.addEventListener("focusout", () => { if (!pinned) hide(); });
    each.addEventListener("pointerover", (event) => {
      if (!pinned && event.target.matches(".t")) explain(event.target);
    });
    each.addEventListener("pointerleave", () => { if (!pinned && !each.contains(document.activeElement)) hide(); });
    each.addEventListener("click", (event) => {
      if (!event.target.matches(".t")) return;
      pinned = !(pinned && shown === event.target);
      explain(event.target);
    });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("click", (event) => { if (!event.target.closest(".passage, #token-controls")) hide(); });
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("input", (event) => (event.target.name === "run" ? refill() : paint()));
  document.documentElement.classList.add("scripted");
  refill();
})();
