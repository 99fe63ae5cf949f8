/** The page loads uPlot from beside it; its types are the package's. */
export { default } from 'uplot';
