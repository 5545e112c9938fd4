use super::*;
use crate::canonicalize::algebra::Algebra;
use crate::check::{becomes, example, run};

fn cut(start: i64, end: i64, step: i64) -> Cut {
    Cut { start, end, step }
}

/// Indices that a cut takes of a dim.
fn indices(cut: Cut, dim: i64) -> Vec<i64> {
    let at = |bound: i64| if bound < 0 { bound + dim } else { bound }.clamp(0, dim);
    (at(cut.start)..at(cut.end)).step_by(cut.step as usize).collect()
}

const BOUNDS: [i64; 9] = [-7, -2, -1, 0, 1, 2, 3, 5, END];

/// Every choice of a number of bounds.
fn choices(count: usize) -> Vec<Vec<i64>> {
    (0..count).fold(vec![Vec::new()], |lists, _| {
        let longer = |list: &Vec<i64>| BOUNDS.map(|bound| [&list[..], &[bound]].concat());
        lists.iter().flat_map(longer).collect()
    })
}

#[test]
fn two_cuts_are_one_whatever_the_dim_is() {
    let mut merged = 0;
    for bounds in choices(4).iter().filter(|bounds| bounds[0] != END && bounds[2] != END) {
        for steps in [(1, 1), (1, 2), (2, 1), (2, 3)] {
            let (inner, outer) = (cut(bounds[0], bounds[1], steps.0), cut(bounds[2], bounds[3], steps.1));
            let Some(one) = both(inner, outer) else { continue };
            merged += 1;
            for dim in 0..12 {
                let first = indices(inner, dim);
                let second = indices(outer, first.len() as i64);
                let twice: Vec<i64> = second.iter().map(|&at| first[at as usize]).collect();
                assert_eq!(indices(one, dim), twice, "{inner:?}, then {outer:?} is not {one:?} of {dim}");
            }
        }
    }
    assert!(merged > 1000);
}

#[test]
fn neighbouring_cuts_are_one_whatever_the_dim_is() {
    let of = Graph::new("g").add_constant("c", Tensor::scalar(0f32));
    let part = |start, end| Part { of, cut: cut(start, end, 1), others: Cuts::new() };
    let mut joined = 0;
    for bounds in choices(3) {
        let (left, right) = (part(bounds[0], bounds[1]), part(bounds[1], bounds[2]));
        let ordered = left.cut.is_ordered() && right.cut.is_ordered();
        if bounds[0] == END || bounds[1] == END || !ordered {
            continue;
        }
        let Some(one) = together(&left, &right) else { continue };
        joined += 1;
        for dim in 0..12 {
            let parts = [indices(left.cut, dim), indices(right.cut, dim)].concat();
            assert_eq!(indices(one.cut, dim), parts, "{:?} and {:?} of {dim}", left.cut, right.cut);
        }
    }
    assert!(joined > 50);
}

#[test]
fn slices_of_slices_and_of_what_was_put_together() {
    example(&Algebra, include_str!("../parts.rs"));
}

/// Nodes left of `y = body`, given x : f32[n,8], z : f32[n,4].
fn left(body: &str) -> usize {
    let text = format!(
        r#"model "g"
        input %0 "x" : f32[n,8]
        input %1 "z" : f32[n,4]
        %2 = Constant [0] : i64[1]
        %3 = Constant [1] : i64[1]
        %4 = Constant [5] : i64[1]
        %5 = Constant [8] : i64[1]
        %6 = Constant [6] : i64[1]
        {body}"#
    );
    rabot_rewrite::Stats::of(&run(&Algebra, &text).0).nodes
}

#[test]
fn parts_that_are_put_together_again() {
    let both = "%10 = Slice(%0, %2, %4, %3)\n%11 = Slice(%0, %4, %5, %3)\n";
    assert_eq!(left(&format!("{both}%12 = Concat(%10, %11) {{axis=1}}\noutput \"y\" = %12")), 0);
    assert_eq!(left(&format!("{both}%12 = Concat(%11, %10) {{axis=1}}\noutput \"y\" = %12")), 3);
    assert_eq!(left(&format!("{both}%12 = Concat(%1, %10, %11) {{axis=1}}\noutput \"y\" = %12")), 1);
    // One element apart.
    let apart = "%10 = Slice(%0, %2, %4, %3)\n%11 = Slice(%0, %6, %5, %3)\n";
    assert_eq!(left(&format!("{apart}%12 = Concat(%10, %11) {{axis=1}}\noutput \"y\" = %12")), 3);
    let split = "%10:2 = Split(%0) {axis=1, num_outputs=2}\n";
    assert_eq!(left(&format!("{split}%12 = Concat(%10, %10#1) {{axis=1}}\noutput \"y\" = %12")), 0);
    assert_eq!(left(&format!("{split}%12 = Concat(%10#1, %10) {{axis=1}}\noutput \"y\" = %12")), 2);
}

#[test]
fn splits_at_the_seams_give_the_operands() {
    let split = |first: i64| {
        format!(
            "%10 = Concat(%0, %1) {{axis=1}}\n%11 = Constant [{first}, {}] : i64[2]
             %12:2 = Split(%10, %11) {{axis=1, num_outputs=2}}
             %13 = Neg(%12)\n%14 = Abs(%12#1)\noutput \"y\" = %13\noutput \"z\" = %14",
            12 - first
        )
    };
    assert_eq!(left(&split(8)), 2);
    assert_eq!(left(&split(7)), 4);
}

#[test]
fn concatenations_are_flattened_unless_others_need_them() {
    let inner = "%10 = Concat(%0, %1) {axis=1}\n%11 = Concat(%10, %0) {axis=1}\noutput \"y\" = %11";
    assert_eq!(left(inner), 1);
    assert_eq!(left(&format!("{inner}\noutput \"i\" = %10")), 2);
    assert_eq!(left("%10 = Concat(%0, %0) {axis=0}\n%11 = Concat(%10, %10) {axis=1}\noutput \"y\" = %11"), 2);
}

#[test]
fn indices_in_a_row_are_a_slice() {
    becomes(
        &Algebra,
        r#"model "g"
        input %0 "x" : f32[n,8]
        %1 = Constant [-3, -2, -1] : i64[3]
        %2 = Gather(%0, %1) {axis=1}
        output "y" = %2"#,
        r#"model "g"
        input %0 "x" : f32[n,8]
        %1 = Constant [5] : i64[1]
        %2 = Constant [8] : i64[1]
        %3 = Constant [1] : i64[1]
        %4 = Slice(%0, %1, %2, %3)
        output "y" = %4"#,
    );
    assert_eq!(left("%10 = Constant [1, 3] : i64[2]\n%11 = Gather(%0, %10) {axis=1}\noutput \"y\" = %11"), 1);
    // All of it.
    let all = "%10 = Constant [0, 1, 2, 3] : i64[4]\n%11 = Gather(%1, %10) {axis=1}\noutput \"y\" = %11";
    assert_eq!(left(all), 0);
    // Which ones these are depends on n.
    assert_eq!(left("%10 = Constant [0, 1] : i64[2]\n%11 = Gather(%0, %10)\noutput \"y\" = %11"), 1);
}
