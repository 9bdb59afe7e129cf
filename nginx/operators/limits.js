// Above what a figure is shown as bad: the thresholds of the alerts (deploy/prometheus/rules/alerts.yml).

const HIGHEST = { errors: 0.01, p95: 1, lag: 5, use: 0.8, breakers: 0 };

export const tooHigh = (name, value) => value > (HIGHEST[name] ?? Infinity);
