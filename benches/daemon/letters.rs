//! The cost of dead letters and of `multilangd.childErrorLine` while no record fails: one load with and without them,
//! in turn.

use crate::process::Daemon;
use crate::speed::{MODES, Run, SHARDS, through};
use crate::world::World;

/// Bytes of a record.
const SIZE: usize = 1_000;
/// Bytes of all records.
const DATA: usize = 1_024_000_000;
/// Rounds: each runs every variant, in another order, so that a change of the machine's speed affects all of them.
const REPEATS: usize = 7;
/// The first one is what the others are compared with; the second one is identical and shows the noise.
const VARIANTS: [(&str, &str); 4] = [
    ("neither", ""),
    ("neither, again", ""),
    ("`multilangd.deadLetters`", "multilangd.deadLetters = file:FOLDER\n"),
    ("`multilangd.childErrorLine`", "multilangd.childErrorLine = kclpy\n"),
];

pub async fn letters() {
    println!("\n## letters: 4 shards, records of 1 KB, children that answer without a failure\n");
    println!("Medians of {REPEATS} rounds, and of the ratios to the first row in the same round.\n");
    println!("| reader | setting | MB/s | ratio | CPU s/GB | ratio |\n|---|---|---|---|---|---|");
    let mut world = World::new(i32::try_from(SHARDS).unwrap()).await;
    world.fill(DATA, SIZE).await;
    world.close().await;
    let folder = world.folder.join("letters");
    std::fs::create_dir_all(&folder).unwrap();
    // A stream has at most 20 consumers: all runs of the subscription share one.
    let consumer = world.consumer("letters").await;
    let megabytes = (DATA / SIZE * SIZE) as f64 / 1e6;
    for (how, more) in MODES {
        let more = if how == "pushed" {
            format!("{more}fanoutConfig.consumerArn = {consumer}\n")
        } else {
            more.to_owned()
        };
        let mut runs: Vec<[Run; VARIANTS.len()]> = Vec::new();
        for number in 0..REPEATS {
            let mut round = [const { None }; VARIANTS.len()];
            for place in 0..VARIANTS.len() {
                let index = (place + number) % VARIANTS.len();
                let setting = VARIANTS[index].1.replace("FOLDER", &folder.display().to_string());
                let file = world.file(&format!("{how}-{number}-{index}"), "", &format!("{more}{setting}"));
                round[index] = Some(through(&mut world, Daemon::Ours.start(&file)).await);
            }
            runs.push(round.map(Option::unwrap));
        }
        for (index, (setting, _)) in VARIANTS.into_iter().enumerate() {
            println!(
                "| {how} | {setting} | {:.0} | {:.2} | {:.2} | {:.2} |",
                median(runs.iter().map(|round| megabytes / round[index].seconds)),
                median(runs.iter().map(|round| round[0].seconds / round[index].seconds)),
                median(runs.iter().map(|round| round[index].cpu / megabytes * 1e3)),
                median(runs.iter().map(|round| round[index].cpu / round[0].cpu))
            );
        }
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "no record failed, so there is no letter");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
