use super::{Order, Report, Select, Weight, functions, tree};
use crate::format::unfold;
use crate::profile::Measure;

/// A report about folded stacks.
fn report(select: Select, files: &[&str]) -> Report {
    let mut report = Report::new(select);
    for (at, file) in files.iter().enumerate() {
        let profile = unfold::read(file.as_bytes()).expect("folded stacks");
        let added = report.add(&format!("{at}.folded"), &profile);
        added.expect("all have samples");
    }
    report
}

const FILE: &str = "\
server;main;serve;parse 30
server;main;serve;parse;copy_[k] 10
server;main;serve;render 40
server;main;serve;render;parse 15
worker;[incomplete: no-rule];lost 5
";

fn all(report: &Report, order: Order) -> Vec<(&str, u64, u64)> {
    report
        .functions(order)
        .into_iter()
        .map(|(subject, Weight { own, total })| (subject.name(), own, total))
        .collect()
}

#[test]
fn own_and_total_samples_of_functions_are_counted() {
    let report = report(Select::default(), &[FILE]);
    assert_eq!(
        all(&report, Order::Own),
        [
            ("parse", 45, 55),
            ("render", 40, 55),
            ("copy", 10, 10),
            ("lost", 5, 5),
            ("main", 0, 95),
            ("serve", 0, 95),
            ("[incomplete: no-rule]", 0, 5),
        ]
    );
    let by_total: Vec<_> = all(&report, Order::Total).into_iter().map(|row| row.0).collect();
    assert_eq!(by_total[..4], ["main", "serve", "parse", "render"]);
}

#[test]
fn a_function_that_calls_itself_counts_once() {
    let report = report(Select::default(), &["x;f;g;f;f 7\n"]);
    assert_eq!(all(&report, Order::Own), [("f", 7, 7), ("g", 0, 7)]);
}

#[test]
fn several_files_are_added_up() {
    let report = report(Select::default(), &["a;f 1\n", "b;f 2\nb;g 4\n"]);
    assert_eq!(all(&report, Order::Own), [("g", 4, 4), ("f", 3, 3)]);
    assert_eq!(report.samples(), 7);
}

#[test]
fn the_table_is_aligned_and_says_what_it_left_out() {
    let report = report(Select::default(), &[FILE]);
    assert_eq!(
        functions(&report, Order::Own, 3, 0.005),
        "\
0.folded: server, 100 samples, 95.0 % complete

self         total         kind    object  function
  45 45.0 %     55 55.0 %  C/C++           parse
  40 40.0 %     55 55.0 %  C/C++           render
  10 10.0 %     10 10.0 %  kernel          copy
… and 4 more functions (--limit, or below --min-share 0.5%)
"
    );
}

#[test]
fn a_tree_goes_further_in_where_it_branches() {
    let report = report(Select::default(), &[FILE]);
    assert_eq!(
        tree(&report, 100, 0.0),
        "\
0.folded: server, 100 samples, 95.0 % complete

   total     self  function
  95.0 %    0.0 %  ├ server
  95.0 %    0.0 %  │ main
  95.0 %    0.0 %  │ serve
  55.0 %   40.0 %  │ ├ render
  15.0 %   15.0 %  │ │ parse
  40.0 %   30.0 %  │ └ parse
  10.0 %   10.0 %  │   copy
   5.0 %    0.0 %  └ worker
   5.0 %    0.0 %    [incomplete: no-rule]
   5.0 %    5.0 %    lost
"
    );
    let cut = tree(&report, 2, 0.2);
    assert!(
        cut.ends_with("  95.0 %    0.0 %  main\n… and 3 more lines (--limit, or below --min-share 20%)\n"),
        "{cut}"
    );
}

#[test]
fn samples_can_be_selected_and_shares_stay_those_of_all() {
    let select = Select {
        thread: Some("serv".to_owned()),
        focus: Some("rend".to_owned()),
    };
    let report = report(select, &[FILE]);
    assert_eq!((report.selected(), report.samples()), (55, 100));
    let text = functions(&report, Order::Own, 10, 0.0);
    assert!(
        text.contains("55 of 100 samples (55.0 %): threads named \"serv\" stacks with \"rend\"; shares are of all samples\n"),
        "{text}"
    );
    assert!(
        text.contains("  15 15.0 %     15 15.0 %  C/C++          parse\n"),
        "{text}"
    );
    assert!(!text.contains("lost"), "{text}");
}

#[test]
fn names_of_the_target_cannot_move_the_cursor() {
    let report = report(Select::default(), &["\u{1b}[2J;\u{1b}[31mred;\u{202e}x 1\n"]);
    for text in [functions(&report, Order::Own, 10, 0.0), tree(&report, 10, 0.0)] {
        assert!(
            text.contains("\\u{1b}[31mred") && text.contains("\\u{202e}x"),
            "{text}"
        );
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    }
}

#[test]
fn deep_stacks_need_no_deep_recursion() {
    let frames = vec!["f"; 100_000].join(";");
    let report = report(Select::default(), &[&format!("x;{frames} 1\n")]);
    assert_eq!(tree(&report, usize::MAX, 0.0).lines().count(), 100_000 + 4);
}

#[test]
fn time_off_the_cpu_is_shown_in_milliseconds_and_is_no_sum_with_time_on_it() {
    let mut waits =
        unfold::read(b"server;main;read 1234567890\nserver;main;lock 45678901\n").expect("folded stacks");
    waits.meta.measure = Measure::OffCpu;
    let mut report = Report::new(Select::default());
    report.add("waits.pb.gz", &waits).expect("the first");
    let table = functions(&report, Order::Own, 10, 0.0);
    assert!(
        table.starts_with("waits.pb.gz: server, 1,280.246 ms off the CPU, 100.0 % complete\n"),
        "{table}"
    );
    assert!(table.contains("1,234.567 96.4 %"), "{table}");
    let on_cpu = unfold::read(b"server;main 1\n").expect("folded stacks");
    let refused = report.add("cpu.pb.gz", &on_cpu).expect_err("no sum");
    assert!(refused.to_string().contains("waits.pb.gz"), "{refused}");
    assert_eq!(report.samples(), 1_280_246_791);
}
