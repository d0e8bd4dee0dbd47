"use strict";
// Draws the table of days as a plot. Without it, the table is what there is.
(() => {
  const table = document.getElementById("days");
  const place = document.getElementById("plot");
  if (!table || !window.uPlot) return;

  const rows = [...table.tBodies[0].rows];
  const number = (row, cell) => Number(row.cells[cell].textContent.replaceAll(",", ""));
  const counts = new Map(rows.map((row) => [row.cells[0].textContent,
    [number(row, 1), number(row, 2), number(row, 3)]]));
  const day_s = 86400;
  const at = (date) => Date.parse(date + "T00:00:00Z") / 1000;
  const dates = [...counts.keys()].filter((date) => !Number.isNaN(at(date))).sort();
  // A lonely bar would fill the plot: a fortnight at least, and each day has its place.
  const last = at(dates[dates.length - 1]);
  const first = Math.min(at(dates[0]), last - 13 * day_s);
  const days = [];
  for (let time = first; time <= last; time += day_s) days.push(time);
  const parts = [0, 1, 2].map((part) => days.map((time) => {
    const found = counts.get(new Date(time * 1000).toISOString().slice(0, 10));
    return found ? found[part] : 0;
  }));
  // Bars that stand on one another: the highest is drawn first.
  const sums = [0, 1, 2].map((part) => days.map((_, day) =>
    parts.slice(0, part + 1).reduce((sum, each) => sum + each[day], 0)));

  let plot = null;
  const draw = () => {
    if (plot) plot.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const bars = uPlot.paths.bars({ size: [0.7, 40] });
    const series = (part, label, name) => ({
      label, fill: colour(name), stroke: colour(name), width: 0, paths: bars,
      points: { show: false },
      value: (_, sum, __, day) => (day == null ? "–" : parts[part][day].toLocaleString("en")),
    });
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line") },
      ticks: { stroke: colour("--line") } };
    plot = new uPlot({
      width: place.clientWidth, height: 220,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      hooks: { ready: [(self) => self.setLegend({ idx: days.length - 1 })] },
      cursor: { drag: { x: false, y: false } },
      scales: {
        x: { range: () => [first - day_s / 2, last + day_s / 2] },
        y: { range: (_, low, high) => [0, Math.max(high * 1.1, 4)] },
      },
      axes: [{ ...axis, grid: { show: false }, space: 70,
        incrs: [1, 2, 7, 14, 28].map((count) => count * day_s),
        values: (_, times) => times.map((time) =>
          new Date(time * 1000).toISOString().slice(5, 10)) },
      { ...axis, size: 60, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4,
        2e4, 5e4, 1e5, 1e6, 1e7], values: (_, counts) =>
        counts.map((count) => count.toLocaleString("en")) }],
      series: [{ label: "day", value: (_, time) =>
        (time == null ? "–" : new Date(time * 1000).toISOString().slice(0, 10)) },
      series(2, "waiting", "--waiting"), series(1, "dead", "--dead"),
      series(0, "delivered", "--delivered")],
    }, [days, sums[2], sums[1], sums[0]], place);
  };
  draw();
  table.closest("details").open = false;
  addEventListener("resize", () => plot.setSize({ width: place.clientWidth, height: 220 }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
