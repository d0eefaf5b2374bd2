// Draws every figure of the page, in the colours and the arrangement that fit, and follows both when they change.
(function () {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = 680;

  function patch(figure, width, printed) {
    const meta = figure.layout.meta || {};
    return Object.assign(
      { dragmode: false, width: width },
      meta[width < (meta.narrow_below || 640) ? "narrow" : "wide"],
      meta[dark.matches && !printed ? "dark" : "light"]
    );
  }

  const places = Object.keys(figures)
    .map((id) => ({ id: id, at: document.getElementById(id), figure: figures[id] }))
    .filter((place) => place.at);

  function follow(printed) {
    for (const place of places) {
      const width = printed ? paper : place.at.clientWidth;
      if (!width) continue;
      const change = patch(place.figure, width, printed);
      place.at.style.minHeight = (change.height || 320) + "px";
      Plotly.relayout(place.at, change);
    }
  }

  let waiting = 0;
  function later() {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => follow(false));
  }

  const drawn = places.map((place) =>
    Plotly.newPlot(place.at, place.figure.data, place.figure.layout, { displayModeBar: false, responsive: false })
  );
  Promise.all(drawn).then(() => {
    follow(false);
    dark.addEventListener("change", later);
    addEventListener("resize", later);
    addEventListener("beforeprint", () => follow(true));
    addEventListener("afterprint", () => follow(false));
  });
})();
