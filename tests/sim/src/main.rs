//! `nightcore-sim`: what each policy makes of a load, drawn; and one world drawn at random.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use engine::core::Policy;
use ipc::Outcome;
use nightcore_sim::cpu::Switching;
use nightcore_sim::lottery;
use nightcore_sim::plot::{self, Line, Scale};
use nightcore_sim::sweep::{self, CONTENDERS, LOADS, Mix, Point, Terms};
use nightcore_sim::world::World;

#[derive(Parser)]
#[command(version, about = "The core of the engine in a simulated world")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Offer loads from 10% to 300% of the capacity to each policy; write CSV and SVG files
    Plot(Plot),
    /// Print the world of a seed of the tests, and what comes of it
    World(OneWorld),
}

#[derive(Args)]
struct Plot {
    /// Where the files go; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Simulated time of each load
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seconds: u64,
    /// A call that is not answered by then is lost
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    deadline_ms: u64,
    /// How much slower a core is for each thread on it beside the first, in percent
    #[arg(long, default_value_t = 2.0)]
    penalty: f64,
    /// Of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct OneWorld {
    /// As the tests print it
    seed: u64,
    /// Of all functions
    #[arg(long, value_enum, default_value_t = Name::Managed)]
    policy: Name,
    /// Calls from outside, about
    #[arg(long, default_value_t = lottery::CALLS)]
    calls: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    Managed,
    Fixed,
    Unlimited,
    Paper,
}

impl From<Name> for Policy {
    fn from(name: Name) -> Policy {
        match name {
            Name::Managed => Policy::Managed,
            Name::Fixed => Policy::Fixed,
            Name::Unlimited => Policy::Unlimited,
            Name::Paper => Policy::Paper,
        }
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Plot(plot) => plot.run(),
        Command::World(world) => {
            world.run();
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nightcore-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Plot {
    fn run(&self) -> Result<(), Box<dyn Error>> {
        std::fs::create_dir_all(&self.out)?;
        let terms = Terms {
            seed: self.seed,
            time: Duration::from_secs(self.seconds),
            deadline: Duration::from_millis(self.deadline_ms),
            switching: Switching { penalty: self.penalty / 100.0, ..Switching::USUAL },
        };
        for mix in Mix::ALL {
            let points: Vec<Point> = CONTENDERS
                .into_iter()
                .flat_map(|contender| LOADS.map(|load| sweep::measure(mix, contender, load, terms)))
                .collect();
            self.write(mix, &points)?;
        }
        eprintln!("written to {}", self.out.display());
        Ok(())
    }

    fn write(&self, mix: Mix, points: &[Point]) -> Result<(), Box<dyn Error>> {
        let file = |ending: &str| self.out.join(format!("{}{ending}", mix.name()));
        std::fs::write(file(".csv"), sweep::csv(points))?;
        let title =
            |what: &str| format!("{what}: {}, deadline {} ms", mix.title(), self.deadline_ms);
        let goodput = lines(points, |point| Some(point.goodput_share));
        let title_goodput = title("Goodput");
        let svg =
            plot::draw(&title_goodput, "goodput, share of capacity", Scale::Linear, &goodput)?;
        save(&file("-goodput.svg"), &svg)?;
        // Where nothing succeeded there is no latency.
        let p99 = |point: &Point| (point.goodput > 0.0).then_some(point.p99.as_secs_f64() * 1e3);
        let p99 = lines(points, p99);
        let svg = plot::draw(&title("p99"), "p99 of successes, ms", Scale::Logarithmic, &p99)?;
        save(&file("-p99.svg"), &svg)
    }
}

fn save(path: &Path, text: &str) -> Result<(), Box<dyn Error>> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// A line for each policy, through the loads at which it has a value.
fn lines(points: &[Point], value: impl Fn(&Point) -> Option<f64>) -> Vec<Line> {
    let line = |name: &str| {
        let here = points.iter().filter(|point| point.contender.name == name);
        let points = here.filter_map(|point| Some((point.load, value(point)?))).collect();
        Line { label: name.to_owned(), points }
    };
    CONTENDERS.iter().map(|contender| line(contender.name)).collect()
}

impl OneWorld {
    fn run(&self) {
        let (plan, time) = lottery::draw(self.seed, self.policy.into(), self.calls);
        println!("{plan:#?}");
        let mut world = World::new(plan);
        world.run(time);
        let busy = world.busy();
        world.come_to_rest();
        let tally = world.tally();
        println!("{time:?}, {} events, cores {:.1}% busy", world.events(), 100.0 * busy);
        for outcome in Outcome::ALL {
            let count = tally.count(outcome);
            if count > 0 {
                println!("{count:8} {}", outcome.as_str());
            }
        }
        let summary = tally.summary(None, Duration::ZERO, time);
        println!("p50 {:?}, p99 {:?} of those that succeeded", summary.p50, summary.p99);
    }
}
