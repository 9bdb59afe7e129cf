// Numbers as people read them; "–" where there is none.

const NONE = "–";

const known = (write) => (value) => (Number.isFinite(value) ? write(value) : NONE);

export const perSecond = known((value) => `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en")}/s`);
export const share = known((value) => `${(value * 100).toFixed(value > 0 && value < 0.1 ? 2 : 1)}%`);
export const count = known((value) => Math.round(value).toLocaleString("en"));
export const seconds = known((value) => (value < 1 ? `${(value * 1_000).toFixed(value < 0.1 ? 1 : 0)} ms` : `${value.toFixed(2)} s`));
export const bytes = known((value) => {
  const power = Math.min(4, Math.floor(Math.log2(Math.max(1, value)) / 10));
  return `${(value / 1024 ** power).toFixed(power ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
});
