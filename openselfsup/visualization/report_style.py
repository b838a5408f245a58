"""Style sheet of the pages about evaluations, beside that of every page."""

STYLE = '''
.scroll { overflow-x: auto; margin-bottom: .8rem; }
.scroll table { width: auto; min-width: 100%; margin: 0; }
.scroll td, .scroll th { white-space: nowrap; padding-right: 1.1rem; }
.scroll th, .scroll td:first-child { white-space: normal; overflow-wrap: normal; }
.scroll td:first-child { min-width: 7.5rem; }
.scroll td.number, .scroll th.number { text-align: right; }
.interval { display: block; color: #555; font-size: .75rem; font-weight: 400; }
.paper td { color: #8a4b00; }
.warning { border-left: .25rem solid #d08300; padding-left: .7rem; max-width: 44rem; }
.scroll .matrix { min-width: 0; font-size: .8125rem; }
.scroll .matrix td, .scroll .matrix th { text-align: center; padding: .3rem .35rem;
  border: 1px solid #fff; min-width: 2.1rem; font-variant-numeric: tabular-nums; }
.matrix th { font-weight: 600; }
.scroll .matrix tbody th { text-align: right; padding-right: .5rem; }
.scroll .matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; }
.scroll .matrix thead th.corner { writing-mode: horizontal-tb; transform: none;
  vertical-align: bottom; font-weight: 400; text-align: right; }
.strip { display: grid; grid-template-columns: repeat(6, minmax(0, 7rem)); gap: .3rem .4rem;
  margin-bottom: .9rem; font-size: .75rem; }
.strip > div, .card { overflow-wrap: anywhere; line-height: 1.25; }
.strip .query { padding-right: .45rem; border-right: 1px solid #ccc; }
.tile { display: block; width: 100%; height: auto; aspect-ratio: 1; border: 3px solid #ccc;
  border-radius: .2rem; margin-bottom: .15rem; }
.same { border-color: #00967d; }
.other { border-color: #d2452b; border-style: dashed; }
.gone { display: flex; align-items: center; justify-content: center; background: #eee;
  color: #555; font-size: .7rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr));
  gap: .8rem; font-size: .75rem; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; }
pre.settings { font-size: .75rem; }
@media (max-width: 36rem) {
  .strip { grid-template-columns: repeat(4, minmax(0, 1fr)); }
  .strip > div:nth-child(n+5) { display: none; }
}
'''
