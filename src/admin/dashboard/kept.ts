/** How much of the latest the relay keeps, and the page shows of it. */

export const TRANSACTIONS_KEPT = 1_000;
/** For the charts. */
export const SERIES_SECONDS = 15 * 60;
