"use strict";
(() => {
  const MOST_LINES = 5100;
  const stages = [...document.querySelectorAll("details.stage")].map((element) => {
    const pre = element.querySelector("pre.lines");
    const lines = pre ? [...pre.children].map((line) => [line.className, line.textContent.replace(/\n$/, "")]) : [];
    const title = element.querySelector("summary").textContent.toLowerCase();
    return { element, pre, lines, title, shown: "" };
  });
  const field = document.getElementById("search");
  const hits = document.getElementById("hits");

  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };

  const marked = (text, wanted) => {
    const parts = [];
    const lower = text.toLowerCase();
    let from = 0;
    // Lower case can change the length of a text, and then places do not fit.
    if (wanted && lower.length === text.length) {
      for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, from)) {
        const found = document.createElement("mark");
        found.textContent = text.slice(at, at + wanted.length);
        parts.push(text.slice(from, at), found);
        from = at + wanted.length;
      }
    }
    return [...parts, text.slice(from) + "\n"];
  };

  const show = (stage, lines, wanted) => {
    if (!stage.pre) return;
    const rows = lines.slice(-MOST_LINES).map(([kind, text]) => {
      const row = document.createElement("span");
      if (kind && kind !== "out") row.className = kind;
      row.append(...marked(text, wanted));
      return row;
    });
    stage.pre.replaceChildren(...rows);
    stage.shown = wanted;
  };

  const reveal = (stage) => {
    if (!stage.element.open || stage.isWhole !== false || stage.shown) return;
    stage.isWhole = true;
    show(stage, stage.lines, "");
  };

  const search = () => {
    const wanted = field.value.trim().toLowerCase();
    let lineCount = 0;
    let stageCount = 0;
    for (const stage of stages) {
      const lines = wanted ? stage.lines.filter(([, text]) => text.toLowerCase().includes(wanted)) : stage.lines;
      const isTitle = stage.title.includes(wanted);
      const isHit = lines.length > 0 || isTitle;
      stage.element.hidden = Boolean(wanted) && !isHit;
      if (wanted && lines.length) {
        show(stage, lines, wanted);
        stage.element.open = true;
        lineCount += lines.length;
      } else if (stage.shown) {
        show(stage, stage.lines, "");
      }
      if (!wanted && stage.wasOpen !== undefined) stage.element.open = stage.wasOpen;
      if (isHit) stageCount += 1;
    }
    const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
    hits.textContent = wanted ? `${count(lineCount, "line")} in ${count(stageCount, "stage")}` : "";
  };

  const openTarget = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.matches("details")) {
      target.open = true;
      target.hidden = false;
      target.scrollIntoView();
    }
  };

  const start = async () => {
    const packed = document.getElementById("logs").content.textContent;
    if (packed) {
      for (const [number, lines] of Object.entries(await unpack(packed))) {
        const stage = stages[Number(number)];
        const note = stage.element.querySelector(".cut");
        stage.lines = lines;
        stage.isWhole = false;
        if (note) note.remove();
      }
    }
    for (const stage of stages) {
      stage.element.addEventListener("toggle", () => reveal(stage));
      reveal(stage);
    }
    document.querySelector(".search").hidden = false;
  };

  if (field) {
    let timer = 0;
    let isSearching = false;
    field.addEventListener("input", () => {
      if (!isSearching) for (const stage of stages) stage.wasOpen = stage.element.open;
      isSearching = field.value.trim() !== "";
      clearTimeout(timer);
      timer = setTimeout(search, 100);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && document.activeElement !== field && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        field.focus();
      }
    });
    // An old browser without DecompressionStream searches the lines that the page shows.
    start().catch(() => { document.querySelector(".search").hidden = false; });
  }
  addEventListener("hashchange", openTarget);
  addEventListener("beforeprint", () => { for (const stage of stages) stage.element.open = true; });
  openTarget();
})();
