//! Statements whose text never changes: each connection prepares them once and finds them by their
//! type. A `sql_query` is prepared anew each time, which costs a commit of six statements as many
//! round trips more, and takes it the pipeline.

/// Declares a statement: texts, and the parameters between them.
macro_rules! statement {
    ($(#[$meta:meta])* $name:ident<$life:lifetime> {
        $($text:literal $field:ident: $rust:ty => $sql:ty),+; $end:literal
    }) => {
        $(#[$meta])*
        pub(super) struct $name<$life> {
            $(pub $field: $rust,)+
        }

        impl diesel::query_builder::QueryId for $name<'_> {
            type QueryId = $name<'static>;

            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl diesel::query_builder::QueryFragment<diesel::pg::Pg> for $name<'_> {
            fn walk_ast<'b>(
                &'b self,
                mut out: diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>,
            ) -> diesel::QueryResult<()> {
                $(
                    out.push_sql($text);
                    out.push_bind_param::<$sql, _>(&self.$field)?;
                )+
                out.push_sql($end);
                Ok(())
            }
        }
    };
}
pub(super) use statement;
